"""What `kanoclip-doctor` finds out: the machine, the engines on it, and whether they give a bundle's answers."""

from __future__ import annotations

import platform
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.parts import FLAVOURS
from kanoclip.runtime.engines import Backend, Report, create_backend, silent
from kanoclip.runtime.engines.onnxruntime.backend import BOTH_INSTALLED
from kanoclip.runtime.engines.reference import Comparison, Reference
from kanoclip.runtime.engines.tensorrt.backend import TensorRtBackend
from kanoclip.runtime.engines.tensorrt.flavour import load_flavour
from kanoclip.runtime.errors import BackendError, KanoclipError
from kanoclip.runtime.system.hardware import own_cores
from kanoclip.runtime.system.installed import installed_versions

PACKAGES = (
    "kanoclip-edge",
    "numpy",
    "opencv-python",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-cu13",
    "tensorrt-rtx",
    "cuda-python",
    "pycuda",
)
REPORT = "kanoclip-report"
"""Names the format of `report_of`."""
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


def compare(
    bundle: Bundle,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    report: Report = silent,
    *,
    rebuild: bool = False,
) -> Comparison:
    """Runs the bundle's own images on an engine and on the reference.

    Args:
        bundle: What to score by.
        backend: As `create_backend` takes it.
        device: As `create_backend` takes it.
        threads: CPU threads of the engine that is scored, None for all cores.
        report: Called with the progress of an engine's build.
        rebuild: Build a TensorRT engine now, score it on this GPU and keep it.

    Raises:
        BundleError: The bundle has no images or no bounds of its own.
        BackendError: An engine cannot be made, or failed.
    """
    reference = Reference(bundle, alone=True)
    tested: Backend
    if rebuild:
        tested = TensorRtBackend(bundle, backend, device, report, rebuild=True)
    else:
        tested = create_backend(bundle, backend, device, threads, report)
    engine, fused = None, None
    try:
        answers = reference.run(tested)
        if isinstance(tested, TensorRtBackend):
            engine, fused = tested.origin, tested.fused_attention()
    finally:
        tested.close()  # before the reference is loaded: a large graph need not fit twice
    return replace(reference.compare(answers), engine=engine, fused_attention=fused)


def comparison_json(found: Comparison) -> dict[str, Any]:
    """What programs read since 0.1.0, where NaN is null."""
    values = {"pictures" if key == "compared" else key: value for key, value in asdict(found).items()}
    return {key: value if value == value else None for key, value in values.items()}


def report_of(
    bundle: Bundle, machine: Machine, backend: str, device: str, outcome: Comparison | KanoclipError
) -> dict[str, Any]:
    """What ran where, as JSON values that a user can send: `kanoclip-doctor --report`.

    Args:
        bundle: What was scored by; named by its model and digest, not by its place.
        machine: Of `examine_machine`.
        backend: As it was asked for.
        device: As it was asked for.
        outcome: What the comparison came to, or why there is none.
    """
    manifest, found = bundle.manifest, None if isinstance(outcome, KanoclipError) else outcome
    version = machine.packages.get("onnxruntime-gpu") or machine.packages.get("onnxruntime")
    if backend.startswith("openvino"):
        version = machine.packages.get("openvino")
    if backend in FLAVOURS:
        version = None
        with suppress(BackendError):
            version = load_flavour(backend).version  # a Jetson's is no package of Python's
    return {
        "format": REPORT,
        "version": 1,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": asdict(machine),
        "asked": {"backend": backend, "device": device},
        "engine_version": version,
        "bundle": {
            "backbone": manifest.model.backbone,
            "precision": manifest.precision,
            "image_size": list(manifest.model.image_size),
            "batch": manifest.max_batch,
            "dynamic_batch": manifest.dynamic_batch,
            "graph": bundle.graph_digest(),
        },
        "agrees": None if found is None else found.agrees,
        "comparison": None if found is None else comparison_json(found),
        "error": _without_places(str(outcome), bundle) if found is None else None,
    }


def _without_places(text: str, bundle: Bundle) -> str:
    """A message without the folders of whoever sends it."""
    for place, name in ((bundle.root, "BUNDLE"), (Path.home(), "~")):
        text = text.replace(str(place), name)
    return text


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
