"""int8 and fp8: QuantizeLinear and DequantizeLinear around the tower's large MatMuls, calibrated on pictures.

In the form that TensorRT's parser takes: symmetric, weights per channel, each pair with one consumer, no quantised
bias; for CPUs the same in a float32 graph, with uint8 activations and their zero points, as VNNI multiplies them.
Q K^T, P V, the patch embedding, norms and the head stay as they are, and so do the first blocks, as many as the
measured drift asks for. NNCF does not do better on these graphs (docs/measurements.md).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import onnx
import onnx_ir as ir

from kanoclip.export.calibration import Range, activation_ranges
from kanoclip.export.onnx_writer import EXTERNAL_DATA_FROM
from kanoclip.export.quantize_fp8 import to_float8
from kanoclip.export.rewrites import store_in_half
from kanoclip.export.sensitivity import Choice, fewest_alone, leave_alone
from kanoclip.runtime.backends import Report
from kanoclip.runtime.errors import ExportError
from kanoclip.runtime.types import Image

FIRST_OPSET = 19
"""QuantizeLinear takes fp16 from here on, and knows float8."""
_BLOCK = re.compile(r"^tower\.(blocks\.\d+|final)\.")
_GEMMS = ("MatMul", "Gemm")
_FIRST_LAYER = "patch_weight"


def quantizable(graph: onnx.GraphProto) -> dict[str, int]:
    """The MatMuls and Gemms with a constant matrix, without patch embedding and head.

    Returns:
        Their names with the number of the block that each belongs to, from 0; what follows the last block has the
        number after it. Attention's joint projection carries no module's name: it belongs to the block named next.
    """
    matrices = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2} - {_FIRST_LAYER}
    numbers: dict[str, int] = {}
    layers: dict[str, int] = {}
    waiting: list[str] = []
    for node in graph.node:
        if node.op_type not in _GEMMS or node.name.startswith("head") or not matrices.intersection(node.input):
            continue
        waiting.append(node.name)
        if found := _BLOCK.match(node.name):
            layers |= dict.fromkeys(waiting, numbers.setdefault(found[1], len(numbers)))
            waiting.clear()
    return layers | dict.fromkeys(waiting, len(numbers))


def quantize(
    source: Path,
    target: Path,
    precision: str,
    frames: Sequence[Image],
    batch: int,
    report: Report,
) -> Choice:
    """Writes the quantised form of a graph.

    Args:
        source: The fp16 graph, opset 19 or later; for `int8-cpu` the float32 one. Weights as constants, no Casts.
        target: Where to write; large weights go into TARGET.data.
        precision: `int8`, `int8-cpu` or `fp8`.
        frames: uint8 [h, w, 3], BGR, at model size: what calibration looks at, one at a time.
        batch: Length of the graph's static batch axis; 1 for a dynamic one.
        report: Told the step and the share of it that is done.

    Returns:
        Which blocks were left alone, and why.

    Raises:
        ExportError: There is nothing to quantise, or no picture.
    """
    plain = onnx.shape_inference.infer_shapes(onnx.load(source))
    layers = quantizable(plain.graph)
    if not layers or not frames:
        raise ExportError(f"{precision} needs at least one picture and one MatMul with constant weights")
    constants = {tensor.name for tensor in plain.graph.initializer}
    activations = sorted(
        {name for node in plain.graph.node if node.name in layers for name in node.input[:2] if name not in constants}
    )
    step = f"calibrating {precision}"
    ranges = activation_ranges(source, plain, activations, frames, batch, lambda share: report(step, share))
    marked = _place_pairs(plain, layers, ranges, asymmetric=precision == "int8-cpu")
    if precision == "fp8":
        to_float8(marked, plain, ranges)
    step = "choosing the blocks to leave alone"
    choice = fewest_alone(source, plain, marked, layers, frames, batch, lambda share: report(step, share))
    written = leave_alone(marked, plain, {name for name, block in layers.items() if block < choice.blocks_unquantised})
    written = _stored_in_half(written)
    apart = sum(len(tensor.raw_data) for tensor in written.graph.initializer) >= EXTERNAL_DATA_FROM
    onnx.save_model(written, target, save_as_external_data=apart, location=target.name + ".data")
    return choice


def _place_pairs(
    plain: onnx.ModelProto, layers: Collection[str], ranges: Mapping[str, Range], *, asymmetric: bool
) -> onnx.ModelProto:
    """A copy of the graph with int8 pairs around every layer."""
    # ONNX Runtime's quantiser is slow to import.
    from onnxruntime.quantization import QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import TensorData

    limits = {
        name: (found.low, found.high) if asymmetric else (-found.largest, found.largest)
        for name, found in ranges.items()
    }
    copy = onnx.ModelProto()
    copy.CopyFrom(plain)
    quantizer = QDQQuantizer(
        copy,
        True,  # per channel
        False,  # all 8 bits
        QuantType.QInt8,  # of weights
        QuantType.QUInt8 if asymmetric else QuantType.QInt8,
        {name: TensorData(lowest=low, highest=high) for name, (low, high) in limits.items()},
        sorted(layers),
        [],
        list(_GEMMS),
        {
            "ActivationSymmetric": not asymmetric,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "DedicatedQDQPair": True,
            "OpTypesToExcludeOutputQuantization": list(_GEMMS),
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    placed: onnx.ModelProto = quantizer.model.model
    return placed


def _stored_in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """What was left alone is stored as the plain graph's weights are."""
    opened = ir.serde.deserialize_model(model)
    store_in_half(opened.graph)
    return ir.serde.serialize_model(opened)
