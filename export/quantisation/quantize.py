"""int8 and fp8: QuantizeLinear and DequantizeLinear around the tower's products, calibrated on images.

In the form that TensorRT's parser takes: symmetric, weights per channel, each pair with one consumer, no quantised
bias; for CPUs the same in a float32 graph, with uint8 activations and their zero points, as VNNI multiplies them.
A stem's convolutions are quantised too, but for the first and in fp8, which has none.
Q K^T, P V, the patch embedding, norms and the head stay as they are, and so do the first stages of a stem and the first
blocks, as many as the measured drift asks for. NNCF does not do better on these graphs (docs/measurements.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import onnx_ir as ir

from kanoclip.export.onnx_writer import EXTERNAL_DATA_FROM
from kanoclip.export.quantisation.calibration import Range, activation_ranges, input_moments
from kanoclip.export.quantisation.quantize_fp8 import to_float8
from kanoclip.export.quantisation.sensitivity import Choice, Layers, fewest_alone, leave_alone
from kanoclip.export.quantisation.stem import chain_of, convolutions, quantise_chain, readers_of, round_marked
from kanoclip.export.rewrites import store_in_half
from kanoclip.runtime.engines import Report
from kanoclip.runtime.errors import ExportError
from kanoclip.runtime.system.installed import keep_onnxruntime_silent
from kanoclip.runtime.types import Image

FIRST_OPSET = 19
"""QuantizeLinear takes fp16 from here on, and knows float8."""
_BLOCK = re.compile(r"^tower\.(blocks\.\d+|final)\.")
_GEMMS = ("MatMul", "Gemm")
_EXACT = ("patch_weight", "probes")
"""Matrices that are never quantised: the patch embedding, and a pooling head's keys, whose product is its Q K^T."""
_LEFT = ("head", "front.", "memory.")
"""What is never quantised of the matrices: the head, a stem's projection to tokens, which is its patch embedding and
alone drifts nano's map by 0.01, and the memory's upsampling, whose distances calibration has never seen."""


def quantizable(graph: onnx.GraphProto) -> dict[str, int]:
    """The MatMuls and Gemms with a constant matrix, without patch embedding, or a stem's projection, and head.

    Returns:
        Their names with the number of the block that each belongs to, from 0; what follows the last block has the
        number after it. Attention's joint projection carries no module's name: it belongs to the block named next.
    """
    matrices = {
        tensor.name
        for tensor in graph.initializer
        if len(tensor.dims) == 2 and tensor.name.rpartition(".")[2] not in _EXACT
    }
    numbers: dict[str, int] = {}
    layers: dict[str, int] = {}
    waiting: list[str] = []
    for node in graph.node:
        if node.op_type not in _GEMMS or node.name.startswith(_LEFT) or not matrices.intersection(node.input):
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
        frames: uint8 [h, w, 3], BGR, at model size: what calibration reads, one at a time.
        batch: Length of the graph's static batch axis; 1 for a dynamic one.
        report: Called with the step and the share of it that is done.

    Returns:
        Which stages and blocks were left alone, and why.

    Raises:
        ExportError: There is nothing to quantise, or no image.
    """
    plain = onnx.shape_inference.infer_shapes(onnx.load(source))
    matrices = quantizable(plain.graph)
    filters = {} if precision == "fp8" else convolutions(plain.graph)
    if not matrices or not frames:
        raise ExportError(f"{precision} needs at least one image and one MatMul with constant weights")
    for_cpus = precision == "int8-cpu"
    chain = chain_of(plain.graph) if for_cpus and filters else []
    constants = {tensor.name for tensor in plain.graph.initializer}
    products = [node for node in plain.graph.node if node.name in matrices or node.name in filters]
    activations = sorted({*chain, *(name for node in products for name in node.input[:2] if name not in constants)})
    calibrating = f"calibrating {precision}"
    ranges = activation_ranges(source, plain, activations, frames, batch, lambda share: report(calibrating, share))
    marked = _place_pairs(plain, [*matrices] if for_cpus else [*matrices, *filters], ranges, asymmetric=for_cpus)
    if precision == "fp8":
        to_float8(marked, plain, ranges)
    if filters:
        moments = input_moments(
            source, plain, filters, frames, batch, lambda share: report("rounding the convolutions", share)
        )
        if for_cpus:
            quantise_chain(marked.graph, chain, moments, ranges)
        else:
            round_marked(marked.graph, plain.graph, moments)
    stages = max(filters.values(), default=-1) + 1
    numbers = filters | {name: stages + block for name, block in matrices.items()}
    layers = Layers(numbers, readers_of(plain.graph, chain, numbers), stages)
    step = "choosing the stages and blocks to leave alone" if stages else "choosing the blocks to leave alone"
    choice = fewest_alone(source, plain, marked, layers, frames, batch, lambda share: report(step, share))
    written = leave_alone(marked, plain, layers.first(choice.stages_unquantised + choice.blocks_unquantised))
    written = _stored_in_half(written)
    apart = sum(len(tensor.raw_data) for tensor in written.graph.initializer) >= EXTERNAL_DATA_FROM
    onnx.save_model(written, target, save_as_external_data=apart, location=target.name + ".data")
    return choice


def _place_pairs(
    plain: onnx.ModelProto, layers: Sequence[str], ranges: Mapping[str, Range], *, asymmetric: bool
) -> onnx.ModelProto:
    """A copy of the graph with int8 pairs before every layer."""
    # ONNX Runtime's quantiser is slow to import.
    keep_onnxruntime_silent()
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
        [*_GEMMS, "Conv"],
        {
            "ActivationSymmetric": not asymmetric,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "DedicatedQDQPair": True,
            "OpTypesToExcludeOutputQuantization": [*_GEMMS, "Conv"],
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    placed: onnx.ModelProto = quantizer.model.model
    # The quantiser lets everything read a tensor's bytes that reads the tensor.
    before = {node.name: node.input for node in plain.graph.node if node.name not in layers}
    for node in placed.graph.node:
        if node.name in before:
            node.input[:] = before[node.name]
    return placed


def _stored_in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """What was left alone is stored as the plain graph's weights are."""
    opened = ir.serde.deserialize_model(model)
    store_in_half(opened.graph)
    return ir.serde.serialize_model(opened)
