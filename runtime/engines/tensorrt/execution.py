"""Runs of an engine: memory at fixed addresses, execution contexts, and a CUDA graph for each batch size."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.signature import MEMORY_INPUTS, TensorSpec
from kanoclip.runtime.engines.base import FETCHED
from kanoclip.runtime.engines.inputs import Floats, Inputs, MemoryTensors, fixed_rows
from kanoclip.runtime.engines.tensorrt.buffers import Buffer, make_buffer
from kanoclip.runtime.engines.tensorrt.device import CaptureError, Device, lost
from kanoclip.runtime.engines.tensorrt.flavour import Flavour
from kanoclip.runtime.errors import BackendError

MOST_GRAPHS = 8
"""Batch sizes with a graph; further ones run without. A graph costs memory, and one that is thrown away for another
size would be recorded again and again."""

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


@dataclass
class _Batch:
    """What runs one batch size: a recorded graph keeps what its context held, so that no other size may use that.

    Attributes:
        context: TensorRT's.
        graph: Launches a run; None before it is recorded, and where it cannot be.
        ran: Whether it has run: the first run prepares what cannot be prepared while a graph is recorded.
    """

    context: Any
    graph: Callable[[], None] | None = None
    ran: bool = False


class Execution:
    """Runs batches of an engine, one after the other, on a stream and in memory of its own.

    Args:
        bundle: Whose engine it is.
        device: Where it runs.
        flavour: Which TensorRT.
        engine: TensorRT's.
        make_context: Makes an execution context that has its own memory for what it computes; None for failure.
        reason: What TensorRT said last.

    Raises:
        BackendError: The engine does not fit, or the GPU has no room.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: Device,
        flavour: Flavour,
        engine: Any,
        make_context: Callable[[], Any],
        reason: Callable[[], str],
    ) -> None:
        self._bundle, self._device, self._flavour, self._engine = bundle, device, flavour, engine
        self._stream = device.make_stream()
        self._make_context, self._reason = make_context, reason
        manifest = bundle.manifest
        self._dynamic, self._rows = manifest.dynamic_batch, 0
        # TensorRT-RTX captures by itself: a graph of ours would freeze the kernels it starts with for good.
        self._records = device.captures and not flavour.is_rtx
        self._scratch = self._make_scratch() if self._records and self._dynamic else None
        self._inputs = {s.name: self._make_buffer(s) for s in manifest.inputs if s.name not in MEMORY_INPUTS}
        # Not among the inputs, which are uploaded for every frame.
        self._memory = {
            spec.name: make_buffer(device, self._stream, _axes(spec, int(spec.shape[0])), spec.dtype)
            for spec in fixed_rows(manifest).inputs
            if spec.name in MEMORY_INPUTS
        }
        self._held: MemoryTensors | None = None
        self._outputs = {spec.name: self._make_buffer(spec) for spec in manifest.outputs}
        self._any = self._last = _Batch(self._new_context())
        self._batches: dict[int, _Batch] = {}

    def start(self, inputs: Inputs) -> None:
        """Puts one batch on the stream; the one before must have been waited for.

        Raises:
            DeviceLostError: The GPU failed.
            BackendError: The GPU does not answer.
        """
        batch = self._last = self._fill(inputs)
        if batch.graph is not None:
            batch.graph()
        else:
            self._enqueue(batch)

    def wait(self) -> None:
        """Waits for the batch that was started: what FETCHED names is on the host then.

        Raises:
            DeviceLostError: The GPU failed.
            BackendError: The GPU does not answer.
        """
        self._stream.synchronize()
        if not self._last.ran:
            self._last.ran = True
            if self._records and self._last is not self._any:
                self._record(self._last)

    def output(self, name: str) -> Floats:
        """An output of the last run, which the next one overwrites; one of FETCHED."""
        return self._outputs[name].host[: self._rows]

    def fetch(self, name: str) -> Floats:
        """Another output of the last run, a copy. The graphs leave it on the GPU: `run` has no use for it.

        Raises:
            DeviceLostError: The GPU failed.
            BackendError: The GPU does not answer.
        """
        self._outputs[name].download(self._rows)
        self._stream.synchronize()
        return np.array(self.output(name))

    def time(self, inputs: Inputs, *, graph: bool) -> GpuTimes:
        """Runs one batch and measures where its time goes, by the GPU's own clock.

        Args:
            inputs: Of a size that has run before.
            graph: Launch the recorded graph; else each copy and the inference by themselves.

        Raises:
            DeviceLostError: The GPU failed.
            BackendError: There is no graph, or the GPU does not answer.
        """
        batch = self._fill(inputs)
        if graph and batch.graph is None:
            raise BackendError("there is no CUDA graph of this batch size: leave it out")
        whole = (batch.graph,) if graph and batch.graph is not None else None
        parts = whole or (self._upload, lambda: self._execute(batch), self._download)
        started = time.perf_counter()
        enqueued = started

        def last() -> None:
            nonlocal enqueued
            enqueued = time.perf_counter()

        spent = self._stream.time([*parts, last])[:-1]
        return GpuTimes((enqueued - started) * 1e3, sum(spent), *(() if whole else spent))

    @property
    def recorded(self) -> tuple[int, ...]:
        """The batch sizes that run as a graph."""
        return tuple(rows for rows, batch in self._batches.items() if batch.graph is not None)

    @property
    def contexts(self) -> tuple[Any, ...]:
        """TensorRT's contexts, whose destructors wait for the GPU."""
        return tuple(batch.context for batch in (self._any, *self._batches.values()))

    def close(self) -> None:
        """Drops the contexts, which must go before the engine, its memory and the GPU's state do.

        An error's traceback, or a batch that nobody has collected, may hold all else for longer.
        """
        for batch in (self._any, *self._batches.values()):
            batch.context = batch.graph = None

    def _fill(self, inputs: Inputs) -> _Batch:
        """Puts a batch where the stream uploads it from, and finds what runs its size."""
        frames, class_index, rows = inputs.frames, inputs.class_index, len(inputs.frames)
        self._take(inputs.memory)
        np.copyto(self._inputs["frame"].host[:rows], frames)
        if class_index is not None:
            np.copyto(self._inputs["class_index"].host[:rows], class_index)
        batch = self._batch_of(rows)
        if batch is self._any and self._dynamic and rows != self._rows:
            self._shape(batch.context, rows)
        self._rows = rows
        return batch

    def _batch_of(self, rows: int) -> _Batch:
        if not self._records:
            return self._any
        if rows not in self._batches and len(self._batches) < MOST_GRAPHS:
            context = self._new_context() if self._dynamic else self._any.context
            self._batches[rows] = _Batch(context)
            if self._dynamic:
                self._shape(context, rows)
        return self._batches.get(rows, self._any)

    def _record(self, batch: _Batch) -> None:
        """Records a run as a graph; without one, runs of that size go on as they are."""
        try:
            batch.graph = self._stream.capture(lambda: self._enqueue(batch))
        except CaptureError as error:
            of = f" at batch size {self._rows}" if self._dynamic else ""
            log.warning(
                "%s-cuda runs without a CUDA graph%s, at a little more processor time a frame (%s)",
                self._flavour.name,
                of,
                error,
            )

    def _take(self, memory: MemoryTensors | None) -> None:
        """Uploads a reference memory, where it is another one than the last."""
        if memory is None or memory is self._held or (info := self._bundle.manifest.memory) is None:
            return
        for name, value in memory.padded(info.rows).inputs().items():
            np.copyto(self._memory[name].host, value)
            self._memory[name].upload(len(value))
        self._stream.synchronize()
        self._held = memory

    def _enqueue(self, batch: _Batch) -> None:
        """Puts copies and inference on the stream, or into what is being recorded."""
        self._upload()
        self._execute(batch)
        self._download()

    def _upload(self) -> None:
        for buffer in self._inputs.values():
            buffer.upload(self._rows)

    def _execute(self, batch: _Batch) -> None:
        if not batch.context.execute_async_v3(self._stream.handle):
            raise lost("a run", self._reason())

    def _download(self) -> None:
        for name in FETCHED:
            self._outputs[name].download(self._rows)

    def _shape(self, context: Any, rows: int) -> None:
        for name, buffer in self._inputs.items():
            context.set_input_shape(name, (rows, *buffer.host.shape[1:]))

    def _new_context(self) -> Any:
        """A context that reads and writes this execution's memory."""
        managed = None if self._scratch is None else self._flavour.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._make_context() if managed is None else self._engine.create_execution_context(managed)
        if context is None:
            raise BackendError(f"{self._flavour.title} cannot prepare the engine ({self._reason()})")
        if self._scratch is not None:
            context.set_device_memory(*self._scratch)
        for name, buffer in (*self._inputs.items(), *self._memory.items(), *self._outputs.items()):
            if not context.set_tensor_address(name, buffer.address):
                raise BackendError(f"{self._flavour.name}-cuda has no tensor {name}: build the engine again")
        return context

    def _make_scratch(self) -> tuple[int, int]:
        """Address and bytes of what all contexts compute in: they run one after the other on one stream."""
        size = int(self._engine.device_memory_size_v2)
        return (self._device.allocate(size) if size else 0), size

    def _make_buffer(self, spec: TensorSpec) -> Buffer:
        return make_buffer(self._device, self._stream, _axes(spec, self._bundle.manifest.max_batch), spec.dtype)


def _axes(spec: TensorSpec, first: int) -> tuple[int, ...]:
    return first, *(axis for axis in spec.shape[1:] if isinstance(axis, int))
