"""ONNX Runtime with inputs and outputs in memory that is bound once, on the device: nothing is allocated per frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kanoclip.runtime.bundle.manifest.schema import Manifest
from kanoclip.runtime.bundle.manifest.signature import MEMORY_INPUTS, ROWS
from kanoclip.runtime.engines.inputs import Floats, Inputs, MemoryTensors


@dataclass(frozen=True)
class _Bound:
    """The tensors of one batch size, and their binding."""

    inputs: dict[str, Any]
    outputs: dict[str, Any]
    binding: Any


class DeviceTensors:
    """Runs a session on tensors of a device. Their addresses stay, which a CUDA graph needs.

    A reference memory lies there too, padded to the most rows, and is copied when another one is given.

    All outputs are bound, those too that are not fetched: a CUDA graph writes where it wrote when it was captured, so
    that one run must serve whatever is asked of it. What is not fetched is not copied to the host.

    Args:
        ort: The module `onnxruntime`.
        session: Made by it.
        manifest: Names, types and shapes.
        device: ONNX Runtime's name of the memory: `cuda` or `cpu`.
        number: Of the device.
    """

    def __init__(self, ort: Any, session: Any, manifest: Manifest, device: str, number: int) -> None:
        self._ort, self._session, self._manifest = ort, session, manifest
        self._place = device, number
        self._bound: dict[int, _Bound] = {}
        self._held: MemoryTensors | None = None
        most = 0 if manifest.memory is None else manifest.memory.rows
        self._memory = {
            spec.name: self._make(tuple(most if axis == ROWS else axis for axis in spec.shape), spec.dtype)
            for spec in manifest.inputs
            if spec.name in MEMORY_INPUTS
        }

    def fetch(self, names: Sequence[str], inputs: Inputs) -> list[Floats]:
        """Runs one batch.

        Args:
            names: Of the outputs to copy to the host.
            inputs: Every input of the graph.

        Returns:
            Those outputs; they are the caller's.
        """
        bound = self._bound.get(len(inputs.frames)) or self._bind(len(inputs.frames))
        bound.inputs["frame"].update_inplace(inputs.frames)
        if inputs.class_index is not None:
            bound.inputs["class_index"].update_inplace(inputs.class_index)
        if inputs.memory is not None and inputs.memory is not self._held and self._manifest.memory is not None:
            for name, value in inputs.memory.padded(self._manifest.memory.rows).inputs().items():
                self._memory[name].update_inplace(value)
            self._held = inputs.memory
        self._session.run_with_iobinding(bound.binding)
        return [np.array(bound.outputs[name].numpy()) for name in names]

    def _bind(self, rows: int) -> _Bound:
        """Makes the tensors of a batch size; a dynamic axis has few of them. All share one memory."""
        taken = [spec for spec in self._manifest.inputs if spec.name not in MEMORY_INPUTS]
        inputs, outputs = (
            {spec.name: self._make((rows, *spec.shape[1:]), spec.dtype) for spec in specs}
            for specs in (taken, self._manifest.outputs)
        )
        binding = self._session.io_binding()
        for name, value in (inputs | self._memory).items():
            binding.bind_ortvalue_input(name, value)
        for name, value in outputs.items():
            binding.bind_ortvalue_output(name, value)
        self._bound[rows] = _Bound(inputs, outputs, binding)
        return self._bound[rows]

    def _make(self, shape: tuple[int | str, ...], dtype: str) -> Any:
        return self._ort.OrtValue.ortvalue_from_shape_and_type(shape, np.dtype(dtype), *self._place)
