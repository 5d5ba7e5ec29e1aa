"""TensorRT-RTX engines, built ahead of time from the ONNX: no GPU is needed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kanoclip.export.onnx_writer import BatchSpec
from kanoclip.runtime.errors import ExportError

Progress = Callable[[float], None]
"""Called with the share done, 0 to 1."""

TURING = "7.5"
"""SM75 gets an engine of its own: one unsupported node there fails the engine for every target in the list."""
ADA = (8, 9)
"""The first generation whose tensor cores multiply float8."""
DEFAULT_TARGETS = ("8.6", "8.9", "12.0")
"""RTX 30, 40 and 50."""


@dataclass(frozen=True)
class BuiltEngine:
    """An engine on disk.

    Attributes:
        path: The file.
        version: TensorRT-RTX's exact version; no other version loads it.
        compute_capabilities: What it runs on, such as `8.6`.
    """

    path: Path
    version: str
    compute_capabilities: tuple[str, ...]


def parse_compute_capabilities(text: str) -> tuple[str, ...]:
    """Reads `8.6,8.9,12.0`, in order and without repeats.

    Raises:
        ExportError: An item is not of the form MAJOR.MINOR.
    """
    items = [item.strip() for item in text.split(",")]
    for item in items:
        if not re.fullmatch(r"\d{1,2}\.\d", item):
            raise ExportError(f"compute capability '{item}': write MAJOR.MINOR, such as 8.6,8.9,12.0")
    return tuple(dict.fromkeys(items))


def default_targets(precision: str) -> tuple[str, ...]:
    """The compute capabilities to build for when none is named."""
    return tuple(target for target in DEFAULT_TARGETS if precision != "fp8" or _number(target) >= ADA)


def rtx_targets(targets: Sequence[str], precision: str) -> list[tuple[str, ...]]:
    """Splits the targets into one list per engine, after checking that TensorRT-RTX knows them.

    Args:
        targets: Compute capabilities.
        precision: Of the graph.

    Raises:
        ExportError: TensorRT-RTX is not installed, does not know a target, or the target cannot run the precision.
    """
    trt = _tensorrt_rtx()
    known = {_dotted(name): name for name in trt.ComputeCapability.__members__ if re.fullmatch(r"SM\d+", name)}
    for target in targets:
        if target not in known:
            raise ExportError(
                f"TensorRT-RTX {trt.__version__} does not build for compute capability {target}: choose from "
                f"{', '.join(known)} (Jetson and data-centre GPUs need full TensorRT)"
            )
    if TURING in targets and precision != "fp16":
        raise ExportError(f"compute capability 7.5 has no {precision} tensor cores: export with --fp16 or leave it out")
    if precision == "fp8" and (early := [target for target in targets if _number(target) < ADA]):
        raise ExportError(
            f"compute capability {', '.join(early)} has no fp8 tensor cores: they came with Ada (8.9, RTX 40) and "
            "Blackwell (12.0, RTX 50); leave it out or export with --int8"
        )
    others = tuple(target for target in targets if target != TURING)
    return [group for group in ((TURING,) if TURING in targets else (), others) if group]


def build_rtx_engine(
    onnx_path: Path, folder: Path, targets: tuple[str, ...], batch: BatchSpec, progress: Progress
) -> BuiltEngine:
    """Builds one strongly typed engine; the precision is the ONNX file's own.

    Args:
        onnx_path: The graph.
        folder: Where the engine is written.
        targets: One list of `rtx_targets`.
        batch: The graph's batch axis; a dynamic one gets a profile from 1 to its size.
        progress: Told how far the build is.

    Raises:
        ExportError: The graph does not parse or does not build; the message holds TensorRT's first error.
    """
    trt = _tensorrt_rtx()
    logger = _make_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_path)):
        reason = parser.get_error(0).desc() if parser.num_errors else "no reason given"
        raise ExportError(f"TensorRT-RTX {trt.__version__} cannot parse {onnx_path.name}: {_one_line(reason)}")
    config = builder.create_builder_config()
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        config.set_compute_capability(getattr(trt.ComputeCapability, _member(target)), index)
    if batch.dynamic:
        profile = builder.create_optimization_profile()
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            rest = tuple(tensor.shape)[1:]
            profile.set_shape(tensor.name, (1, *rest), (batch.size, *rest), (batch.size, *rest))
        config.add_optimization_profile(profile)
    config.progress_monitor = _make_monitor(trt, progress)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        reason = logger.errors[0] if logger.errors else "no reason given"
        raise ExportError(f"TensorRT-RTX {trt.__version__} cannot build for {', '.join(targets)}: {_one_line(reason)}")
    names = "-".join(_member(target).lower() for target in targets)
    path = folder / f"tensorrt-rtx-{trt.__version__}-{names}.engine"
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(memoryview(serialized))
    return BuiltEngine(path, str(trt.__version__), targets)


def _tensorrt_rtx() -> Any:
    try:
        import tensorrt_rtx
    except ImportError as error:
        raise ExportError(
            f"TensorRT-RTX is not installed ({error}): pip install tensorrt-rtx (x86-64 Linux and Windows)"
        ) from error
    return tensorrt_rtx


def _member(target: str) -> str:
    return "SM" + target.replace(".", "")


def _number(target: str) -> tuple[int, ...]:
    return tuple(int(part) for part in target.split("."))


def _dotted(member: str) -> str:
    return f"{member[2:-1]}.{member[-1]}"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


def _make_logger(trt: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        """Collects errors instead of printing them between our own lines."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)

    return Logger()


def _make_monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Maps TensorRT's nested phases onto one share: inner phases divide the step of the outer one."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: dict[str, tuple[str | None, int, int]] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self.phases[name] = (parent, max(steps, 1), 0)
            self._tell(name)

        def phase_finish(self, name: str) -> None:
            self.phases.pop(name, None)

        def step_complete(self, name: str, step: int) -> bool:
            if name in self.phases:
                parent, steps, _ = self.phases[name]
                self.phases[name] = (parent, steps, min(step + 1, steps))
                self._tell(name)
            return True

        def _tell(self, name: str) -> None:
            share, current = 0.0, name
            while current in self.phases:
                parent, steps, done = self.phases[current]
                share = min((done + share) / steps, 1.0)
                if parent is None:
                    break
                current = parent
            progress(share)

    return Monitor()
