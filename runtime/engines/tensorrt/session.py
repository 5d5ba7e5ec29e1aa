"""One engine, ready to run: context, memory, CUDA graph."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.signature import BATCH, DESCRIPTOR, MEMORY_INPUTS, TensorSpec
from kanoclip.runtime.engines.base import (
    FETCHED,
    BaseBackend,
    Floats,
    Frames,
    Indices,
    Inputs,
    MemoryTensors,
    any_class,
    check_signature,
    descriptor_of,
    fixed_rows,
)
from kanoclip.runtime.engines.tensorrt.buffers import Buffer, make_buffer
from kanoclip.runtime.engines.tensorrt.building.build import Serialized, refit
from kanoclip.runtime.engines.tensorrt.device import CaptureError, Device, abandon, lost
from kanoclip.runtime.engines.tensorrt.flavour import Flavour, collecting_logger
from kanoclip.runtime.errors import BackendError
from kanoclip.runtime.system.paths import replace_file

_FUSED = "_gemm_mha"
"""In the name of a layer that is a whole attention block."""
_TYPES = {"UINT8": "uint8", "INT64": "int64", "FLOAT": "float32"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GpuTimes:
    """Milliseconds of one run, by the names that trtexec has for them.

    Attributes:
        enqueue: Of the processor, until all is on the stream.
        total: Of the GPU: both copies and the inference.
        upload: Host to device; None where all is one graph.
        compute: Inference; None likewise.
        download: Device to host; None likewise.
    """

    enqueue: float
    total: float
    upload: float | None = None
    compute: float | None = None
    download: float | None = None


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
    ) -> None:
        """Loads the engine and prepares everything that a run needs.

        Args:
            bundle: Whose engine it is.
            device: Entered by the caller.
            flavour: Which TensorRT.
            serialized: The engine.
            stripped: Its weights are taken from the bundle's graph.
            kernels: File in which TensorRT-RTX keeps what it compiles for this GPU; None for none.

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
        self._bundle, manifest = bundle, bundle.manifest
        _check_signature(bundle, flavour.trt, self._engine)
        self._context = self._make_context(flavour)
        if self._context is None:
            raise BackendError(f"{flavour.title} cannot prepare the engine ({self._logger.reason})")
        self._inputs = {
            spec.name: self._bind(spec, manifest.max_batch)
            for spec in manifest.inputs
            if spec.name not in MEMORY_INPUTS
        }
        # Not among the inputs, which are uploaded for every frame.
        self._memory = {
            spec.name: self._bind(spec, int(spec.shape[0]))
            for spec in fixed_rows(manifest).inputs
            if spec.name in MEMORY_INPUTS
        }
        self._held: MemoryTensors | None = None
        self._outputs = {spec.name: self._bind(spec, manifest.max_batch) for spec in manifest.outputs}
        self._dynamic, self._rows = manifest.dynamic_batch, 0
        # TensorRT-RTX captures by itself: a graph of ours would freeze the kernels it starts with for good.
        self._captures = device.captures and not flavour.is_rtx and not self._dynamic
        self._graph: Callable[[], None] | None = None

    def run(
        self, frames: Frames, class_index: Indices | None, memory: MemoryTensors | None = None
    ) -> tuple[Floats, Floats]:
        """Runs one batch; see `Backend.run`.

        Raises:
            DeviceLostError: The GPU failed.
            BackendError: The GPU does not answer.
        """
        self._infer(Inputs.of(self._bundle.manifest, frames, class_index, memory))
        # The caller keeps a map for as long as it likes; the buffers are filled again by the next run.
        maps, scores = (self._outputs[name].host[: len(frames)].copy() for name in FETCHED)
        return maps, scores

    def describe(self, frames: Frames) -> Floats:
        """Computes the descriptors of one batch; see `Backend.describe`.

        Raises:
            DeviceLostError: The GPU failed.
            BackendError: The bundle has none, or the GPU does not answer.
        """
        descriptor_of(self._bundle)
        manifest = self._bundle.manifest
        self._infer(Inputs.of(manifest, frames, any_class(manifest, len(frames))))
        # A copy of its own, after the run: `run` shares the CUDA graph and has no use for it.
        found = self._outputs[DESCRIPTOR]
        found.download(len(frames))
        self._device.synchronize()
        return np.array(found.host[: len(frames)])

    def time(self, frames: Frames, class_index: Indices | None, *, graph: bool) -> GpuTimes:
        """Runs one batch and measures where its time goes, by the GPU's own clock.

        Args:
            frames: As `run` takes them, which has been called before; so are the classes.
            class_index: Of each frame.
            graph: Launch the recorded graph; else each copy and the inference by themselves.

        Raises:
            DeviceLostError: The GPU failed.
            BackendError: There is no graph, or the GPU does not answer.
        """
        if graph and self._graph is None:
            raise BackendError(f"{self.name} has no CUDA graph of its own here: leave it out")
        self._fill(Inputs.of(self._bundle.manifest, frames, class_index))
        parts = (self._graph,) if graph and self._graph is not None else (self._upload, self._execute, self._download)
        started = time.perf_counter()
        enqueued = started

        def last() -> None:
            nonlocal enqueued
            enqueued = time.perf_counter()

        spent = self._device.time([*parts, last])[:-1]
        return GpuTimes((enqueued - started) * 1e3, sum(spent), *(() if graph else spent))

    @property
    def has_graph(self) -> bool:
        """Whether runs are launched as a graph that was recorded here."""
        return self._graph is not None

    def _infer(self, inputs: Inputs) -> None:
        """Runs one batch and waits for it: what FETCHED names is on the host then."""
        first = self._rows == 0
        self._fill(inputs)
        if self._graph is not None:
            self._graph()
        else:
            self._enqueue()
        self._device.synchronize()
        if first:
            # The first run prepares what cannot be prepared while a graph is recorded.
            if self._captures:
                self._capture()
            self._keep_kernels()

    def _fill(self, inputs: Inputs) -> None:
        """Puts a batch where the stream uploads it from."""
        frames, class_index, rows = inputs.frames, inputs.class_index, len(inputs.frames)
        self._take(inputs.memory)
        if self._dynamic and rows != self._rows:
            for name, buffer in self._inputs.items():
                self._context.set_input_shape(name, (rows, *buffer.host.shape[1:]))
        self._rows = rows
        np.copyto(self._inputs["frame"].host[:rows], frames)
        if class_index is not None:
            np.copyto(self._inputs["class_index"].host[:rows], class_index)

    def _capture(self) -> None:
        """Records a run as a graph; without one, runs go on as they are."""
        try:
            self._graph = self._device.capture(self._enqueue)
        except CaptureError as error:
            log.warning("%s runs without a CUDA graph, at a little more processor time a frame (%s)", self.name, error)

    def _take(self, memory: MemoryTensors | None) -> None:
        """Uploads a reference memory, where it is another one than the last."""
        if memory is None or memory is self._held or (info := self._bundle.manifest.memory) is None:
            return
        for name, value in memory.padded(info.rows).inputs().items():
            np.copyto(self._memory[name].host, value)
            self._memory[name].upload(len(value))
        self._device.synchronize()
        self._held = memory

    def fused_attention(self) -> int:
        """How many attention blocks run as one fused kernel, by the names of the engine's layers."""
        inspector = self._engine.create_engine_inspector()
        reported = json.loads(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))
        names = (layer["Name"] if isinstance(layer, dict) else layer for layer in reported["Layers"])
        return sum(_FUSED in name for name in names)

    def close(self) -> None:
        """Drops the engine and its memory, in the order that TensorRT asks for."""
        if self._device.hung:
            abandon(self._context, self._engine, self._runtime, self._compiled)
        elif not self._device.lost:
            self._keep_kernels()
        self._graph = self._compiled = self._context = self._engine = self._runtime = None
        self._device.release(self._mark)

    def _enqueue(self) -> None:
        """Copies, inference, copies: all on the one stream, so in this order."""
        self._upload()
        self._execute()
        self._download()

    def _upload(self) -> None:
        for buffer in self._inputs.values():
            buffer.upload(self._rows)

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._device.stream):
            raise lost("a run", self._logger.reason)

    def _download(self) -> None:
        for name in FETCHED:
            self._outputs[name].download(self._rows)

    def _bind(self, spec: TensorSpec, batch: int) -> Buffer:
        rest = tuple(axis for axis in spec.shape[1:] if isinstance(axis, int))
        buffer = make_buffer(self._device, (batch, *rest), spec.dtype)
        if not self._context.set_tensor_address(spec.name, buffer.address):
            raise BackendError(f"{self.name} has no tensor {spec.name}: build the engine again")
        return buffer

    def _make_context(self, flavour: Flavour) -> Any:
        if not flavour.is_rtx:
            return self._engine.create_execution_context()
        config = self._engine.create_runtime_config()
        config.cuda_graph_strategy = flavour.trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self._compiled = config.create_runtime_cache()
        if self._kernels is not None and self._kernels.is_file():
            content = self._kernels.read_bytes()
            if self._compiled.deserialize(content):  # refuses what another GPU, driver or version has left
                self._stored = content
        config.set_runtime_cache(self._compiled)
        return self._engine.create_execution_context(config)

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
