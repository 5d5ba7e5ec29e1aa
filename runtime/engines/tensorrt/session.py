"""One engine, loaded and ready to run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest import BATCH, DESCRIPTOR, TensorSpec
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
from kanoclip.runtime.engines.tensorrt.building.build import Serialized, refit
from kanoclip.runtime.engines.tensorrt.device import Device, abandon
from kanoclip.runtime.engines.tensorrt.execution import Execution, GpuTimes
from kanoclip.runtime.engines.tensorrt.flavour import Flavour, collecting_logger
from kanoclip.runtime.errors import BackendError
from kanoclip.runtime.system.paths import replace_file

_FUSED = "_gemm_mha"
"""In the name of a layer that is a whole attention block."""
_TYPES = {"UINT8": "uint8", "INT64": "int64", "FLOAT": "float32"}


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
        self._bundle = bundle
        _check_signature(bundle, flavour.trt, self._engine)
        self._ran = False
        self._execution: Execution | None = Execution(
            bundle, device, flavour, self._engine, lambda: self._make_context(flavour), lambda: self._logger.reason
        )

    def run(
        self, frames: Frames, class_index: Indices | None, memory: MemoryTensors | None = None
    ) -> tuple[Floats, Floats]:
        """Runs one batch; see `Backend.run`.

        Raises:
            DeviceLostError: The GPU failed.
            BackendError: The GPU does not answer.
        """
        execution = self._infer(Inputs.of(self._bundle.manifest, frames, class_index, memory))
        # The caller keeps a map for as long as it likes; the memory is filled again by the next run.
        maps, scores = (execution.output(name).copy() for name in FETCHED)
        return maps, scores

    def describe(self, frames: Frames) -> Floats:
        """Computes the descriptors of one batch; see `Backend.describe`.

        Raises:
            DeviceLostError: The GPU failed.
            BackendError: The bundle has none, or the GPU does not answer.
        """
        descriptor_of(self._bundle)
        manifest = self._bundle.manifest
        return self._infer(Inputs.of(manifest, frames, any_class(manifest, len(frames)))).fetch(DESCRIPTOR)

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
        return self._open().time(Inputs.of(self._bundle.manifest, frames, class_index), graph=graph)

    @property
    def recorded(self) -> tuple[int, ...]:
        """Batch sizes that are launched as a graph which was recorded here."""
        return self._open().recorded

    def _infer(self, inputs: Inputs) -> Execution:
        """Runs one batch and waits for it."""
        execution = self._open()
        execution.infer(inputs)
        if not self._ran:
            self._ran = True
            self._keep_kernels()
        return execution

    def _open(self) -> Execution:
        if self._execution is None:
            raise BackendError(f"{self.name} is closed: load the bundle again")
        return self._execution

    def fused_attention(self) -> int:
        """How many attention blocks run as one fused kernel, by the names of the engine's layers."""
        inspector = self._engine.create_engine_inspector()
        reported = json.loads(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))
        names = (layer["Name"] if isinstance(layer, dict) else layer for layer in reported["Layers"])
        return sum(_FUSED in name for name in names)

    def close(self) -> None:
        """Drops the engine and its memory, in the order that TensorRT asks for."""
        if self._device.hung:
            contexts = () if self._execution is None else self._execution.contexts
            abandon(*contexts, self._engine, self._runtime, self._compiled)
        elif not self._device.lost:
            self._keep_kernels()
        self._execution = self._compiled = self._engine = self._runtime = None
        self._device.release(self._mark)

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
