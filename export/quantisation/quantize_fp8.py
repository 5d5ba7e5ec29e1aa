"""fp8: the pairs of an int8 graph with float8 e4m3fn in them.

The pairs stand where they stood, so that both precisions have one calibration and one form that parses. ONNX Runtime's
own float8 scales follow the standard deviation and cut off at 4.5 of it, which a tower's outliers pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from kanoclip.export.quantisation.calibration import Range

LARGEST = 448.0
"""Of e4m3fn, which has no infinity."""
_WEIGHT = "_quantized"
"""What ONNX Runtime's quantiser adds to the name of a constant matrix."""


def to_float8(marked: onnx.ModelProto, plain: onnx.ModelProto, ranges: Mapping[str, Range]) -> None:
    """Changes int8 pairs to float8 ones, in place: one byte a weight, fp16 scales.

    Args:
        marked: A graph with int8 pairs of ONNX Runtime's quantiser.
        plain: The fp16 graph that it was made from, for the weights before rounding.
        ranges: Of each quantised activation.
    """
    graph = marked.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    weights = {tensor.name: tensor for tensor in plain.graph.initializer}
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        name, scale, zero = node.input
        if node.op_type == "QuantizeLinear":
            scales = _scales(ranges[name].largest)
        elif name in tensors:
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
            weight = numpy_helper.to_array(weights[name.removesuffix(_WEIGHT)]).astype(np.float32)
            scales = _scales(np.abs(weight).max(axis=1 - axis))
            shares = weight / np.expand_dims(scales.astype(np.float32), 1 - axis)
            rounded = np.clip(shares, -LARGEST, LARGEST).astype(ml_dtypes.float8_e4m3fn)
            tensors[name].CopyFrom(_float8(rounded, name))
        else:
            continue  # the second half of an activation's pair reads the first's scale
        tensors[scale].CopyFrom(numpy_helper.from_array(scales, scale))
        tensors[zero].CopyFrom(_float8(np.zeros(scales.shape, ml_dtypes.float8_e4m3fn), zero))
    for value in graph.value_info:
        if value.type.tensor_type.elem_type == TensorProto.INT8:
            value.type.tensor_type.elem_type = TensorProto.FLOAT8E4M3FN


def _scales(limits: npt.NDArray[Any]) -> npt.NDArray[np.float16]:
    """The scale that lets a magnitude fill float8's range; fp16's smallest number where all is 0."""
    scales = np.asarray(limits, np.float32) / LARGEST
    return np.asarray(np.maximum(scales, np.finfo(np.float16).smallest_subnormal), np.float16)


def _float8(values: npt.NDArray[Any], name: str) -> TensorProto:
    """One byte an element."""
    return helper.make_tensor(name, TensorProto.FLOAT8E4M3FN, values.shape, values.tobytes(), raw=True)
