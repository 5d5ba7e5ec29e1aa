"""What is measured: a bundle on each of the engines asked for, and its model in torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.engines import BACKENDS, Backend, Report, create_backend
from kanoclip.runtime.engines.inputs import Frames, Indices
from kanoclip.runtime.errors import BackendError, KanoclipError, one_line

TORCH = ("torch", "torch-compile")
COMPARABLE = (*TORCH, *(name for name in BACKENDS if name != "auto"))


@dataclass(frozen=True)
class Runner:
    """One of those that take turns.

    Attributes:
        name: The backend's own name, such as `openvino-cpu`.
        requested: What it was asked for as: a name of COMPARABLE, or `auto`.
        backend: With one worker.
        device: `cpu` or `cuda[:N]`: where it runs.
        precisions: What its products may be computed in; the fastest of them is its peak.
    """

    name: str
    requested: str
    backend: Backend
    device: str
    precisions: tuple[str, ...]

    @property
    def is_torch(self) -> bool:
        """Whether it is the model in torch rather than the bundle."""
        return self.requested in TORCH

    @property
    def engine(self) -> str:
        """As `open_backend` takes it: what `auto` came to, too."""
        return self.name.rpartition("-")[0] if self.requested == "auto" else self.requested


def open_runners(
    bundle: Bundle, names: Sequence[str], device: str, threads: int | None, report: Report
) -> tuple[list[Runner], dict[str, str]]:
    """Opens them in order and runs each once; what does not run here is left out.

    Args:
        bundle: What to run.
        names: Of COMPARABLE, or `auto`.
        device: As `create_backend` takes it.
        threads: CPU threads, None for all cores.
        report: Called with the progress of an engine's build.

    Returns:
        Those that run, and of the others why not.

    Raises:
        KanoclipError: None runs, or the first, which is what the user asked to be measured, does not.
    """
    opened: list[Runner] = []
    left_out: dict[str, str] = {}
    runs = FrameRuns.of(bundle, first_batch(bundle))
    for name in names:
        try:
            backend = open_backend(bundle, name, device, threads, report)
            try:
                runs.run(backend)
            except BaseException:
                backend.close()
                raise
        except (KanoclipError, ImportError, RuntimeError) as error:
            if name == names[0] and not isinstance(error, ImportError):
                raise
            left_out[name] = (
                f"{error.name} is not installed" if isinstance(error, ImportError) and error.name else one_line(error)
            )
            continue
        if any(backend.name == other.name for other in opened):
            backend.close()  # `auto` has taken the same engine
            continue
        place = _place(backend, device)
        opened.append(Runner(backend.name, name, backend, place, precisions(backend.name, bundle.manifest.precision)))
    if not opened:
        raise BackendError("nothing of what was asked for runs here: name another --backend")
    return opened, left_out


def open_backend(
    bundle: Bundle,
    name: str,
    device: str,
    threads: int | None,
    report: Report = lambda step, share: None,
    workers: int = 1,
) -> Backend:
    """Opens one of COMPARABLE, or `auto`.

    Raises:
        KanoclipError: It does not run here.
        ImportError: torch is not installed.
    """
    if name in TORCH:
        from kanoclip.benchmarks.bench.runners.torch_backend import TorchBackend

        where = _torch_device() if device == "auto" else device
        return TorchBackend(bundle, where, compiled=name == "torch-compile", threads=threads)
    return create_backend(bundle, name, device, threads, report, workers)


def precisions(name: str, precision: str) -> tuple[str, ...]:
    """What products a runner may compute in.

    Args:
        name: The backend's own.
        precision: The bundle's.
    """
    if name.startswith("torch"):
        return ("fp16",) if name.endswith("cuda") else ("fp32",)
    if name.endswith("-cpu"):
        rest = "bf16" if name == "openvino-bf16-cpu" else "fp32"  # the CPU's engines compute fp16 graphs in float32
        return ("int8", rest) if precision in ("int8", "int8-cpu") else (rest,)
    return (precision, "fp16") if precision == "int8" else ("fp16",) if precision == "fp8" else (precision,)


def tiles_of(bundle: Bundle) -> int:
    """How many images of the model's size a frame is."""
    tiles = bundle.manifest.tiles
    return 1 if tiles is None else tiles.count


def tiles_title(bundle: Bundle) -> str | None:
    """How a frame is cut, such as `3x1`; None for whole frames."""
    tiles = bundle.manifest.tiles
    return None if tiles is None else tiles.title


def first_batch(bundle: Bundle) -> int:
    """Frames whose latency is measured together: one, or as many as a static graph takes in full."""
    return 1 if bundle.manifest.dynamic_batch else max(bundle.manifest.max_batch // tiles_of(bundle), 1)


def batch_of(bundle: Bundle, size: int) -> tuple[Frames, Indices | None]:
    """The bundle's own images, or noise where it has none, and the first class."""
    manifest = bundle.manifest
    try:
        images = bundle.samples()
    except KanoclipError:
        images = [np.random.default_rng(0).integers(0, 256, (*manifest.frame_size, 3), dtype=np.uint8)]
    frames = np.stack([images[number % len(images)] for number in range(size)])
    return frames, np.zeros(size, np.int64) if len(manifest.classes) > 1 else None


@dataclass(frozen=True)
class FrameRuns:
    """All runs of the graph that some frames take, as the detector makes them: a frame is all its tiles.

    Attributes:
        batches: Images and class indices of each run.
    """

    batches: tuple[tuple[Frames, Indices | None], ...]

    @classmethod
    def of(cls, bundle: Bundle, frames: int) -> FrameRuns:
        """The runs of so many frames, on what `batch_of` gives; a static batch is filled up."""
        manifest, images = bundle.manifest, frames * tiles_of(bundle)
        most = manifest.max_batch
        sizes = [min(most, images - start) if manifest.dynamic_batch else most for start in range(0, images, most)]
        return cls(tuple(batch_of(bundle, size) for size in sizes))

    def run(self, backend: Backend) -> None:
        """Runs them all."""
        for frames, indices in self.batches:
            backend.run(frames, indices)


def _place(backend: Backend, device: str) -> str:
    if backend.on_cpu:
        return "cpu"
    return device if device.startswith("cuda") else "cuda"


def _torch_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
