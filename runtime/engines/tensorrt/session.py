"""One engine, loaded and ready to run."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.signature import BATCH, DESCRIPTOR, TensorSpec
from kanoclip.runtime.engines.base import FETCHED, Answers, BaseBackend, check_signature, descriptor_of
from kanoclip.runtime.engines.inputs import Floats, Frames, Indices, Inputs, MemoryTensors, any_class, fixed_rows
from kanoclip.runtime.engines.tensorrt.building.build import Serialized, refit
from kanoclip.runtime.engines.tensorrt.device import Device, abandon
from kanoclip.runtime.engines.tensorrt.execution import Execution, GpuTimes
from kanoclip.runtime.engines.tensorrt.flavour import Flavour, collecting_logger
from kanoclip.runtime.errors import BackendError, DeviceLostError
from kanoclip.runtime.system.paths import replace_file

_FUSED = "_gemm_mha"
"""In the name of a layer that is a whole attention block."""
_TYPES = {"UINT8": "uint8", "INT64": "int64", "FLOAT": "float32"}

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Flight:
    """A batch that was submitted.

    Attributes:
        execution: What computes it.
        answers: Once they are there.
    """

    execution: Execution
    answers: Answers | None = None


class Session(BaseBackend):
    """Runs a bundle's engine on a GPU; a `Backend`, but for opening and closing the GPU.

    Attributes:
        name: Such as `tensorrt-rtx-cuda`.
    """

    workers = 1

    def __init__(
        self,
        bundle: Bundle,
        device: Device,
        flavour: Flavour,
        serialized: Serialized,
        *,
        stripped: bool = False,
        kernels: Path | None = None,
        in_flight: int = 1,
    ) -> None:
        """Loads the engine and prepares everything that a run needs.

        Args:
            bundle: Whose engine it is.
            device: Entered by the caller.
            flavour: Which TensorRT.
            serialized: The engine.
            stripped: Its weights are taken from the bundle's graph.
            kernels: File in which TensorRT-RTX keeps what it compiles for this GPU; None for none.
            in_flight: As `Backend.in_flight`; fewer where the GPU has no room for so many.

        Raises:
            BackendError: The engine does not load here, or is not the manifest's.
        """
        self.name = f"{flavour.name}-cuda"
        self._trt = flavour.trt
        self._device, self._kernels, self._mark = device, kernels, device.mark()
        self._compiled: Any = None
        self._stored = b""
        self._logger = collecting_logger(flavour.trt)
        self._runtime = flavour.trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(serialized)
        if self._engine is None:
            raise BackendError(f"{flavour.title} cannot load the engine ({self._logger.reason}): build it again")
        if stripped:
            refit(flavour, self._engine, bundle.model_path)
        self._bundle = bundle
        _check_signature(bundle, flavour.trt, self._engine)
        self._ran = False
        self._flying: list[_Flight] = []
        self._executions = self._make_executions(flavour, in_flight)
        self._idle = list(self._executions)
        self.in_flight = len(self._executions)

    def run(self, frames: Frames, class_index: Indices | None, memory: MemoryTensors | None = None) -> Answers:
        """Runs one batch; see `Backend.run`.

        Raises:
            DeviceLostError: The GPU failed.
            BackendError: The GPU does not answer.
        """
        return self.submit(frames, class_index, memory)()

    def submit(
        self, frames: Frames, class_index: Indices | None, memory: MemoryTensors | None = None
    ) -> Callable[[], Answers]:
        """Begins one batch; see `Backend.submit`.

        Raises:
            DeviceLostError: The GPU failed.
            BackendError: The GPU does not answer.
        """
        execution = self._free()
        execution.start(Inputs.of(self._bundle.manifest, frames, class_index, memory))
        self._idle.remove(execution)
        flight = _Flight(execution)
        self._flying.append(flight)
        return lambda: flight.answers or self._land(flight)

    def describe(self, frames: Frames) -> Floats:
        """Computes the descriptors of one batch; see `Backend.describe`.

        Raises:
            DeviceLostError: The GPU failed.
            BackendError: The bundle has none, or the GPU does not answer.
        """
        descriptor_of(self._bundle)
        manifest, execution = self._bundle.manifest, self._free()
        execution.start(Inputs.of(manifest, frames, any_class(manifest, len(frames))))
        execution.wait()
        return execution.fetch(DESCRIPTOR)

    def time(self, frames: Frames, class_index: Indices | None, *, graph: bool) -> GpuTimes:
        """Runs one batch and measures where its time goes; see `Execution.time`.

        Args:
            frames: As `run` takes them, which has been called before; so are the classes.
            class_index: Of each frame.
            graph: Launch the recorded graph; else each copy and the inference by themselves.

        Raises:
            DeviceLostError: The GPU failed.
            BackendError: There is no graph, or the GPU does not answer.
        """
        return self._free().time(Inputs.of(self._bundle.manifest, frames, class_index), graph=graph)

    @property
    def recorded(self) -> tuple[int, ...]:
        """Batch sizes that are launched as a graph which was recorded here."""
        return self._idle[-1].recorded if self._idle else ()

    def _free(self) -> Execution:
        """One that computes nothing. Where there is none, the oldest batch is waited for, and its answers are held."""
        if not self._idle:
            self._land(self._flying[0])
        return self._idle[-1]  # the last one used, if all are free

    def _land(self, flight: _Flight) -> Answers:
        """Waits for a batch, and frees what computed it."""
        flight.execution.wait()
        # The caller keeps a map for as long as it likes; the memory is filled again by the next run.
        maps, scores = (flight.execution.output(name).copy() for name in FETCHED)
        flight.answers = maps, scores
        self._flying.remove(flight)
        self._idle.append(flight.execution)
        if not self._ran:
            self._ran = True
            self._keep_kernels()
        return flight.answers

    def _make_executions(self, flavour: Flavour, count: int) -> list[Execution]:
        """As many as there is room for, one at least."""
        make_context = self._context_maker(flavour)
        made: list[Execution] = []
        while len(made) < count:
            mark = self._device.mark()
            try:
                made.append(
                    Execution(
                        self._bundle, self._device, flavour, self._engine, make_context, lambda: self._logger.reason
                    )
                )
            except BackendError as error:
                if not made or isinstance(error, DeviceLostError):
                    raise
                self._device.release(mark)
                log.warning("%s computes one frame after the other, with none ready beside it (%s)", self.name, error)
                break
        return made

    def fused_attention(self) -> int:
        """How many attention blocks run as one fused kernel, by the names of the engine's layers."""
        inspector = self._engine.create_engine_inspector()
        reported = json.loads(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))
        names = (layer["Name"] if isinstance(layer, dict) else layer for layer in reported["Layers"])
        return sum(_FUSED in name for name in names)

    def close(self) -> None:
        """Drops the engine and its memory, in the order that TensorRT asks for."""
        with suppress(BackendError):  # what is computed at present must not lose its memory
            for flight in () if self._device.lost or self._device.hung else self._flying:
                flight.execution.wait()
        if self._device.hung:
            contexts = (context for execution in self._executions for context in execution.contexts)
            abandon(*contexts, self._engine, self._runtime, self._compiled)
        elif not self._device.lost:
            self._keep_kernels()
        for execution in self._executions:
            execution.close()
        for held in (self._executions, self._idle, self._flying):
            held.clear()
        self._compiled = self._engine = self._runtime = None
        self._device.release(self._mark)

    def _context_maker(self, flavour: Flavour) -> Callable[[], Any]:
        """What makes a context with memory of its own; what TensorRT-RTX compiles for one, all of them use."""
        if not flavour.is_rtx:
            return lambda: self._engine.create_execution_context()
        config = self._engine.create_runtime_config()
        config.cuda_graph_strategy = flavour.trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self._compiled = config.create_runtime_cache()
        if self._kernels is not None and self._kernels.is_file():
            content = self._kernels.read_bytes()
            if self._compiled.deserialize(content):  # refuses what another GPU, driver or version has left
                self._stored = content
        config.set_runtime_cache(self._compiled)
        return lambda: self._engine.create_execution_context(config)

    def _keep_kernels(self) -> None:
        if self._compiled is None or self._kernels is None:
            return
        content = bytes(memoryview(self._compiled.serialize()))
        if content == self._stored:
            return
        try:
            self._kernels.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._kernels, content)
            self._stored = content
        except OSError:
            self._kernels = None  # it only saves time at the next start


def _check_signature(bundle: Bundle, trt: Any, engine: Any) -> None:
    """Compares the engine's tensors, which TensorRT may have in an order of its own."""
    order = [spec.name for spec in (*bundle.manifest.inputs, *bundle.manifest.outputs)]
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    for number in range(engine.num_io_tensors):
        name = engine.get_tensor_name(number)
        dtype = engine.get_tensor_dtype(name)
        axes = tuple(BATCH if axis < 0 else int(axis) for axis in engine.get_tensor_shape(name))
        side = inputs if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT else outputs
        side.append(TensorSpec(name, _TYPES.get(dtype.name, dtype.name), axes))
    for side in (inputs, outputs):
        side.sort(key=lambda spec: order.index(spec.name) if spec.name in order else len(order))
    check_signature(replace(bundle, manifest=fixed_rows(bundle.manifest)), inputs, outputs)
