"""Which TensorRT engines an export builds, and where their files go."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from kanoclip.runtime.bundle.manifest.parts import EngineInfo
from kanoclip.runtime.bundle.manifest.schema import EXACT
from kanoclip.runtime.engines import Report
from kanoclip.runtime.engines.tensorrt.building.build import BuildOptions, Serialized, build_engine
from kanoclip.runtime.engines.tensorrt.building.key import capability_number, cuda_major, short_name
from kanoclip.runtime.engines.tensorrt.device import platform_name
from kanoclip.runtime.engines.tensorrt.flavour import RTX, Flavour, load_flavour
from kanoclip.runtime.engines.tensorrt.open_device import open_device
from kanoclip.runtime.errors import ExportError

ENGINES_FOLDER = "engines"
TURING = "7.5"
"""SM75 gets an engine of its own: one unsupported node there fails the engine for every target in the list."""
ADA = (8, 9)
"""The first generation whose tensor cores multiply float8."""
DEFAULT_TARGETS = ("8.6", "8.9", "12.0")
"""RTX 30, 40 and 50."""


@dataclass(frozen=True)
class EngineRequest:
    """The engines that were asked for.

    Attributes:
        flavour: `tensorrt-rtx`, built ahead of time, or `tensorrt`, built on and for the GPU that is here.
        options: How to build; for RTX with all targets, which may take several engines.
    """

    flavour: str
    options: BuildOptions

    def for_batch(self, size: int) -> EngineRequest:
        """The same for batches of up to `size` frames."""
        return replace(self, options=replace(self.options, max_batch=size))


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
    return tuple(target for target in DEFAULT_TARGETS if precision != "fp8" or capability_number(target) >= ADA)


def rtx_targets(flavour: Flavour, targets: Sequence[str], precision: str) -> list[tuple[str, ...]]:
    """Splits the targets into one list per engine, after checking that TensorRT-RTX knows them.

    Args:
        flavour: TensorRT-RTX.
        targets: Compute capabilities.
        precision: Of the graph.

    Raises:
        ExportError: TensorRT-RTX does not know a target, or the target cannot run the precision.
    """
    names = flavour.trt.ComputeCapability.__members__
    known = [f"{name[2:-1]}.{name[-1]}" for name in names if re.fullmatch(r"SM\d+", name)]
    for target in targets:
        if target not in known:
            raise ExportError(
                f"{flavour.title} does not build for compute capability {target}: choose from {', '.join(known)} "
                "(Jetson and data-centre GPUs need full TensorRT)"
            )
    if TURING in targets and precision != "fp16":
        raise ExportError(f"compute capability 7.5 has no {precision} tensor cores: export with --fp16 or leave it out")
    if precision == "fp8" and (early := [target for target in targets if capability_number(target) < ADA]):
        raise ExportError(
            f"compute capability {', '.join(early)} has no fp8 tensor cores: they came with Ada (8.9, RTX 40) and "
            "Blackwell (12.0, RTX 50); leave it out or export with --int8"
        )
    others = tuple(target for target in targets if target != TURING)
    return [group for group in ((TURING,) if TURING in targets else (), others) if group]


def plan_engines(request: EngineRequest, precision: str, memory_rows: int = 0) -> list[EngineRequest]:
    """One request per engine, checked before any work is done.

    Args:
        request: The engines that were asked for.
        precision: Of the graph.
        memory_rows: Most rows of a reference memory; 0 for a graph that takes none.

    Raises:
        ExportError: A target is unknown or cannot run the precision, or it is for CPUs only.
        BackendError: This TensorRT is not installed, or there is no GPU where one is needed.
    """
    if precision == "int8-cpu":
        raise ExportError("int8-cpu has zero points, which TensorRT refuses: export with --int8")
    flavour = load_flavour(request.flavour)
    options = replace(request.options, memory_rows=memory_rows or None, tf32=precision != EXACT)
    request = replace(request, options=options)
    if request.flavour == RTX:
        groups = rtx_targets(flavour, request.options.targets, precision)
        return [replace(request, options=replace(request.options, targets=group)) for group in groups]
    gpu = open_device(0)
    capability = gpu.info.compute_capability
    gpu.close()
    if gpu.info.integrated and request.options.compatibility == "ampere-plus":
        raise ExportError("ampere-plus is not for a Jetson: leave --compatibility out, and build on each kind of board")
    if precision == "fp8" and capability_number(capability) < ADA:
        raise ExportError(f"this GPU (compute capability {capability}) has no fp8 tensor cores: export with --int8")
    return [request]


def write_engine(onnx_path: Path, bundle: Path, request: EngineRequest, report: Report) -> EngineInfo:
    """Builds one engine into a bundle's folder.

    Args:
        onnx_path: The graph.
        bundle: The folder; the engine goes into `engines/`.
        request: One of `plan_engines`.
        report: Called with the step's name and how far it is.

    Returns:
        What the manifest says of it.

    Raises:
        BackendError: It cannot be built.
        OSError: It cannot be written.
    """
    flavour, options = load_flavour(request.flavour), request.options
    info = EngineInfo("", flavour.name, flavour.version, options.targets, platform_name())

    def build(whom: str) -> Serialized:
        step = f"building the {flavour.title} engine for {whom}"
        return build_engine(flavour, onnx_path, options, partial(report, step))

    if flavour.is_rtx:
        names = "-".join(map(short_name, options.targets))
        serialized = build(", ".join(options.targets))
    else:
        device = open_device(0)
        gpu = device.info
        names = f"{short_name(gpu.compute_capability)}-{platform_name()}"
        info = replace(
            info,
            compute_capabilities=(gpu.compute_capability,),
            device=gpu.name,
            cuda_major=cuda_major(flavour, gpu),
            compatibility=options.compatibility,
            stripped=options.stripped,
        )
        device.enter()
        try:
            serialized = build(gpu.name)
        finally:
            device.leave()
            device.close()
    path = bundle / ENGINES_FOLDER / f"{flavour.name}-{flavour.version}-{names}.engine"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(serialized)
    return replace(info, file=path.relative_to(bundle).as_posix())
