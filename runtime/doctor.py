"""What `kanoclip-doctor` finds out: the machine, the engines on it, and whether they give a bundle's answers."""

from __future__ import annotations

import math
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from kanoclip.runtime.backends import create_backend
from kanoclip.runtime.backends.base import Backend, Frames, Indices, whole_batches
from kanoclip.runtime.backends.onnxruntime import BOTH_INSTALLED, OnnxRuntimeBackend
from kanoclip.runtime.bundle import Bundle
from kanoclip.runtime.errors import BundleError
from kanoclip.runtime.processor import own_cores
from kanoclip.runtime.versions import installed_versions

PACKAGES = (
    "kanoclip-edge",
    "numpy",
    "opencv-python",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
    "cuda-python",
    "pycuda",
)
_GPU_QUERY = ("nvidia-smi", "--query-gpu=name,compute_cap,driver_version,memory.total", "--format=csv,noheader")
_TEGRA = Path("/etc/nv_tegra_release")


@dataclass(frozen=True)
class Machine:
    """What a report of a problem needs.

    Attributes:
        python: Version.
        system: Operating system and architecture.
        cores: That this process may use.
        gpus: One line each: name, compute capability, driver, memory; empty where no driver answers.
        jetson: The release line of Jetson Linux, None elsewhere.
        packages: Installed distributions and versions.
        problems: In words, each with its remedy.
    """

    python: str
    system: str
    cores: int
    gpus: tuple[str, ...]
    jetson: str | None
    packages: dict[str, str]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """An engine's answers on a bundle's own pictures against the reference's.

    Attributes:
        backend: What was judged, such as `onnxruntime-cuda`.
        pictures: How many were compared.
        map_drift: Largest absolute difference over all maps' pixels; NaN where an answer is.
        score_drift: Largest absolute difference over all scores.
        map_bound: What the export's own gate allows for this precision.
        score_bound: The same for scores.
        milliseconds: Median of a run, after a first one that does not count.
    """

    backend: str
    pictures: int
    map_drift: float
    score_drift: float
    map_bound: float
    score_bound: float
    milliseconds: float

    @property
    def agrees(self) -> bool:
        """Whether both drifts keep within their bounds; NaN never does."""
        return self.map_drift <= self.map_bound and self.score_drift <= self.score_bound


def examine_machine() -> Machine:
    """Looks at this machine; nothing is loaded but the list of installed packages."""
    packages = installed_versions(PACKAGES)
    problems = []
    if {"onnxruntime", "onnxruntime-gpu"} <= packages.keys():
        problems.append(BOTH_INSTALLED)
    if not {"onnxruntime", "onnxruntime-gpu"} & packages.keys():
        problems.append("no ONNX Runtime: pip install 'kanoclip-edge[cpu]', or [gpu] on an NVIDIA GPU")
    gpus = _gpus()
    if gpus and "onnxruntime" in packages and "onnxruntime-gpu" not in packages:
        problems.append("the GPU lies idle: install 'kanoclip-edge[gpu]' in a fresh environment")
    return Machine(
        python=sys.version.split()[0],
        system=f"{platform.system()} {platform.release()}, {platform.machine()}",
        cores=own_cores(),
        gpus=gpus,
        jetson=_jetson(),
        packages=packages,
        problems=tuple(problems),
    )


def compare(bundle: Bundle, backend: str = "auto", device: str = "auto", threads: int | None = None) -> Comparison:
    """Runs the bundle's own pictures on an engine and on the reference.

    The reference is ONNX Runtime on the CPU, on one thread and with every optimisation of the graph turned off: the
    operators one by one as they stand in the file, which no fused or reordered kernel can have got wrong.

    Args:
        bundle: What to judge by.
        backend: As `create_backend` takes it.
        device: As `create_backend` takes it.
        threads: CPU threads of the engine that is judged, None for all cores.

    Raises:
        BundleError: The bundle has no pictures or no bounds of its own.
        BackendError: An engine cannot be made, or failed.
    """
    map_bound, score_bound = _bounds(bundle)
    pictures, classes = bundle.samples(), len(bundle.manifest.classes)
    batches = [
        (frames, indices if classes > 1 else None)
        for frames, indices in whole_batches(pictures, classes, bundle.manifest.max_batch)
    ]
    judged = create_backend(bundle, backend, device, threads)
    try:
        name = judged.name
        answers, spent = _run(judged, batches)
    finally:
        judged.close()
    reference = OnnxRuntimeBackend(bundle, "cpu", tensorrt=False, threads=1, optimised=False)
    try:
        expected, _ = _run(reference, batches)
    finally:
        reference.close()
    map_drift, score_drift = (
        max(float(np.abs(mine[part] - theirs[part]).max()) for mine, theirs in zip(answers, expected, strict=True))
        if all(np.isfinite(mine[part]).all() for mine in answers)
        else math.nan
        for part in (0, 1)
    )
    milliseconds = float(np.median(spent))
    return Comparison(name, len(pictures), map_drift, score_drift, map_bound, score_bound, milliseconds)


def _run(backend: Backend, batches: Sequence[tuple[Frames, Indices | None]]) -> tuple[list[Any], list[float]]:
    backend.run(*batches[0])
    answers, spent = [], []
    for frames, indices in batches:
        started = perf_counter()
        maps, scores = backend.run(frames, indices)
        spent.append((perf_counter() - started) * 1e3)
        answers.append((np.array(maps), np.array(scores)))  # an engine may hand out its own buffers
    return answers, spent


def _bounds(bundle: Bundle) -> tuple[float, float]:
    bounds: Any = (bundle.manifest.parity or {}).get("bounds")
    try:
        limits = float(bounds["map"]), float(bounds["score"])
    except (TypeError, KeyError, ValueError):
        raise BundleError(f"{bundle.root} was exported without a parity report: export it again") from None
    return limits


def _gpus() -> tuple[str, ...]:
    try:
        done = subprocess.run(_GPU_QUERY, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in done.stdout.splitlines() if line.strip())


def _jetson() -> str | None:
    try:
        with _TEGRA.open(encoding="utf-8") as file:
            return file.readline().strip("# \n") or None
    except OSError:
        return None
