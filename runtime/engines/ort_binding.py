"""ONNX Runtime with inputs and outputs in memory that is bound once, on the device: nothing is allocated per frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kanoclip.runtime.bundle.manifest import Manifest
from kanoclip.runtime.engines.base import Floats, Frames, Indices


@dataclass(frozen=True)
class _Bound:
    """The tensors of one batch size, and their binding."""

    inputs: dict[str, Any]
    outputs: dict[str, Any]
    binding: Any


class DeviceTensors:
    """Runs a session on tensors of a device. Their addresses stay, which a CUDA graph needs.

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

    def fetch(self, names: Sequence[str], frames: Frames, class_index: Indices | None) -> list[Floats]:
        """Runs one batch.

        Args:
            names: Of the outputs to copy to the host.
            frames: As `Backend.run` takes them.
            class_index: As `Backend.run` takes it.

        Returns:
            Those outputs; they are the caller's.
        """
        bound = self._bound.get(len(frames)) or self._bind(len(frames))
        bound.inputs["frame"].update_inplace(frames)
        if class_index is not None:
            bound.inputs["class_index"].update_inplace(class_index)
        self._session.run_with_iobinding(bound.binding)
        return [np.array(bound.outputs[name].numpy()) for name in names]

    def _bind(self, rows: int) -> _Bound:
        """Makes the tensors of a batch size; a dynamic axis has few of them."""
        inputs, outputs = (
            {
                spec.name: self._ort.OrtValue.ortvalue_from_shape_and_type(
                    (rows, *spec.shape[1:]), np.dtype(spec.dtype), *self._place
                )
                for spec in specs
            }
            for specs in (self._manifest.inputs, self._manifest.outputs)
        )
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in outputs.items():
            binding.bind_ortvalue_output(name, value)
        self._bound[rows] = _Bound(inputs, outputs, binding)
        return self._bound[rows]
