"""From an ONNX graph to a serialised engine. The network is strongly typed: precision is the graph's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kanoclip.runtime.bundle.manifest.signature import MEMORY_INPUTS
from kanoclip.runtime.engines.tensorrt.building.attention import attention_blocks, keep_in_float32
from kanoclip.runtime.engines.tensorrt.building.key import short_name
from kanoclip.runtime.engines.tensorrt.flavour import Flavour, collecting_logger
from kanoclip.runtime.errors import BackendError, one_line
from kanoclip.runtime.system.paths import replace_file

Progress = Callable[[float], None]
"""Called with the share done, 0 to 1."""
Serialized = memoryview
"""An engine's bytes. A view, since large models' engines take gigabytes and must not be copied."""


@dataclass(frozen=True)
class BuildOptions:
    """How to build.

    Attributes:
        targets: Compute capabilities, such as `8.6`, that TensorRT-RTX builds for; empty for the GPU that is here.
        max_batch: Largest batch of a graph with a dynamic batch axis; a static graph ignores it.
        memory_rows: Rows of a reference memory, which a GPU is always given in full; None where the graph takes none.
        workspace: Most bytes of scratch memory that a layer may ask for, None for all of the GPU's.
        fp32_attention: Numbers of the attention blocks that are computed in float32.
        compatibility: One of the manifest's COMPATIBILITIES; full TensorRT only.
        stripped: Leave out the weights that the ONNX file holds anyway; full TensorRT only.
        tf32: Let tensor cores round the factors of float32 products to 10 bits. Never where blocks are put into
            float32; not for a float32 graph, whose scores it moves by more than their bound.
        timing_cache: File in which full TensorRT keeps what it has measured of kernels; None for none.
    """

    targets: tuple[str, ...] = ()
    max_batch: int = 1
    memory_rows: int | None = None
    workspace: int | None = None
    fp32_attention: frozenset[int] = frozenset()
    compatibility: str = "none"
    stripped: bool = False
    tf32: bool = True
    timing_cache: Path | None = None


@dataclass(frozen=True)
class _Parsed:
    """A network and what must live as long as it does: its constants lie in the parser's memory."""

    logger: Any
    builder: Any
    network: Any
    parser: Any


def build_engine(flavour: Flavour, onnx_path: Path, options: BuildOptions, progress: Progress) -> Serialized:
    """Builds one engine.

    Args:
        flavour: Which TensorRT.
        onnx_path: The graph; weights beside it are found.
        options: How.
        progress: Gets how far it is. What it raises, such as KeyboardInterrupt, ends the build and is raised here.

    Raises:
        BackendError: The graph does not parse or does not build, or this TensorRT lacks an option; the message holds
            TensorRT's first error.
    """
    trt = flavour.trt
    parsed = _parse(flavour, onnx_path)
    logger, builder, network = parsed.logger, parsed.builder, parsed.network
    keep_in_float32(trt, network, options.fp32_attention)
    _fix_rows(network, options.memory_rows)
    config = builder.create_builder_config()
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    _add_profile(builder, network, config, options.max_batch)
    if not options.tf32 or options.fp32_attention:
        config.clear_flag(trt.BuilderFlag.TF32)  # TensorRT sets it by itself
    timing = None
    if flavour.is_rtx:
        _set_targets(flavour, config, options)
    else:
        _set_compatibility(flavour, config, options)
        timing = _attach_timing_cache(config, options.timing_cache)
    monitor = _monitor(trt, progress)
    config.progress_monitor = monitor
    serialized = builder.build_serialized_network(network, config)
    if monitor.raised is not None:
        raise monitor.raised
    if serialized is None:
        wanted = f" for {', '.join(options.targets)}" if options.targets else ""
        raise BackendError(f"{flavour.title} cannot build {onnx_path.name}{wanted}: {logger.reason}")
    if timing is not None and options.timing_cache is not None:
        _keep_timing_cache(timing, options.timing_cache)
    return memoryview(serialized)


def count_attention(flavour: Flavour, onnx_path: Path) -> int:
    """How many half-precision attention blocks TensorRT's parser sees in a graph.

    Raises:
        BackendError: The graph does not parse, or there is no usable GPU where full TensorRT needs one.
    """
    parsed = _parse(flavour, onnx_path)
    return len(attention_blocks(flavour.trt, parsed.network))


def refit(flavour: Flavour, engine: Any, onnx_path: Path) -> None:
    """Gives a stripped engine its weights back.

    Args:
        flavour: Full TensorRT.
        engine: Deserialised; changed.
        onnx_path: The very graph that it was built from.

    Raises:
        BackendError: The graph is another one, or a weight is missing.
    """
    trt, logger = flavour.trt, collecting_logger(flavour.trt)
    refitter = trt.Refitter(engine, logger)
    parser = trt.OnnxParserRefitter(refitter, logger)
    if not parser.refit_from_file(str(onnx_path)) or not refitter.refit_cuda_engine():
        raise BackendError(
            f"the engine's weights are not those of {onnx_path} ({logger.reason}): build the engine again"
        )


def _parse(flavour: Flavour, onnx_path: Path) -> _Parsed:
    """Reads a graph into a strongly typed network."""
    trt, logger = flavour.trt, collecting_logger(flavour.trt)
    builder = trt.Builder(logger)
    if builder is None:  # what the bindings give where there is no GPU or no driver
        raise BackendError(f"{flavour.title} finds no usable GPU here ({logger.reason})")
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_path)):
        reason = parser.get_error(0).desc() if parser.num_errors else "no reason given"
        raise BackendError(f"{flavour.title} cannot parse {onnx_path.name}: {one_line(reason)}")
    return _Parsed(logger, builder, network, parser)


def _fix_rows(network: Any, rows: int | None) -> None:
    """Gives a memory's inputs their one shape: CUDA graphs need it, and a padded row costs a GPU next to nothing."""
    for tensor in (network.get_input(number) for number in range(network.num_inputs)):
        if tensor.name in MEMORY_INPUTS and tensor.shape[0] < 0:
            if rows is None:
                raise BackendError("the graph takes a reference memory, and the manifest does not: export it again")
            tensor.shape = (rows, *tuple(tensor.shape)[1:])


def _add_profile(builder: Any, network: Any, config: Any, max_batch: int) -> None:
    tensors = [network.get_input(number) for number in range(network.num_inputs)]
    tensors = [tensor for tensor in tensors if tensor.shape[0] < 0]
    if not tensors:
        return
    profile = builder.create_optimization_profile()
    for tensor in tensors:
        rest = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, (1, *rest), (max_batch, *rest), (max_batch, *rest))
    config.add_optimization_profile(profile)


def _set_targets(flavour: Flavour, config: Any, options: BuildOptions) -> None:
    if options.stripped or options.compatibility != "none":
        raise BackendError(f"{flavour.title} has neither stripped engines nor compatibility levels: leave them out")
    names = [short_name(target).upper() for target in options.targets] or ["CURRENT"]
    config.num_compute_capabilities = len(names)
    for number, name in enumerate(names):
        config.set_compute_capability(getattr(flavour.trt.ComputeCapability, name), number)


def _set_compatibility(flavour: Flavour, config: Any, options: BuildOptions) -> None:
    trt = flavour.trt
    if options.targets:
        raise BackendError(f"{flavour.title} builds for the GPU that it runs on: leave --compute-capability out")
    level = getattr(trt.HardwareCompatibilityLevel, options.compatibility.upper().replace("-", "_"), None)
    if level is None:
        raise BackendError(f"{flavour.title} has no compatibility level '{options.compatibility}': choose another")
    config.hardware_compatibility_level = level
    if options.stripped:
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
        # Only the very same weights come back, so kernels may still be chosen by their values.
        config.set_flag(trt.BuilderFlag.REFIT_IDENTICAL)


def _attach_timing_cache(config: Any, path: Path | None) -> Any | None:
    if path is None:
        return None
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):  # damaged, or another GPU's
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _keep_timing_cache(cache: Any, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, bytes(memoryview(cache.serialize())))
    except OSError:
        return  # it only saves time


def _monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Maps TensorRT's nested phases onto one share: inner phases divide the step of the outer one."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: dict[str, tuple[str | None, int, int]] = {}
            self.raised: BaseException | None = None

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
            return self.raised is None

        def _tell(self, name: str) -> None:
            share, current = 0.0, name
            while current in self.phases:
                parent, steps, done = self.phases[current]
                share = min((done + share) / steps, 1.0)
                if parent is None:
                    break
                current = parent
            try:
                progress(share)
            except BaseException as error:  # it must not travel through TensorRT's own frames
                self.raised = self.raised or error

    return Monitor()
