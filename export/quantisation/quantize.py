"""int8 and fp8: QuantizeLinear and DequantizeLinear around the tower's products, calibrated on images.

In the form that TensorRT's parser takes: symmetric, weights per channel, each pair with one consumer, no quantised
bias; for CPUs the same in a float32 graph, with uint8 activations and their zero points, as VNNI multiplies them.
A stem's convolutions are quantised too, but for the first and in fp8, which has none. For CPUs their whole chain is:
biases, outputs and residual sums, so that one convolution hands bytes to the next.
Q K^T, P V, the patch embedding, norms and the head stay as they are, and so do the first stages of a stem and the first
blocks, as many as the measured drift asks for. NNCF does not do better on these graphs (docs/measurements.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from kanoclip.export.onnx_writer import EXTERNAL_DATA_FROM
from kanoclip.export.quantisation.calibration import Moments, Range, activation_ranges, input_moments, round_weights
from kanoclip.export.quantisation.quantize_fp8 import to_float8
from kanoclip.export.quantisation.sensitivity import Choice, Layers, fewest_alone, leave_alone
from kanoclip.export.rewrites import store_in_half
from kanoclip.runtime.engines import Report
from kanoclip.runtime.errors import ExportError
from kanoclip.runtime.system.installed import keep_onnxruntime_silent
from kanoclip.runtime.types import Image

FIRST_OPSET = 19
"""QuantizeLinear takes fp16 from here on, and knows float8."""
_BLOCK = re.compile(r"^tower\.(blocks\.\d+|final)\.")
_STAGE = re.compile(r"^front\.stem\.trunk\.groups\.(\d+)\.")
_GEMMS = ("MatMul", "Gemm")
_EXACT = ("patch_weight", "probes")
"""Matrices that are never quantised: the patch embedding, and a pooling head's keys, whose product is its Q K^T."""
_LEFT = ("head", "front.", "memory.")
"""What is never quantised of the matrices: the head, a stem's projection to tokens, which is its patch embedding and
alone drifts nano's map by 0.01, and the memory's upsampling, whose distances calibration has never seen."""
_READ = "_read"
"""What is added to a tensor's name for what its readers get of its bytes."""
_LARGEST_INT32 = 2**31 - 1


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


def convolutions(graph: onnx.GraphProto) -> dict[str, int]:
    """A stem's convolutions, without the first, which reads pixels.

    Returns:
        Their names with the number of the stage that each belongs to, from 0.
    """
    return {
        node.name: int(found[1])
        for node in graph.node
        if node.op_type == "Conv" and (found := _STAGE.match(node.name)) is not None
    }


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
    chain = _chain(plain.graph) if for_cpus and filters else []
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
            _quantise_chain(marked.graph, chain, moments, ranges)
        else:
            _round_marked(marked.graph, plain.graph, moments)
    stages = max(filters.values(), default=-1) + 1
    numbers = filters | {name: stages + block for name, block in matrices.items()}
    layers = Layers(numbers, _readers(plain.graph, chain, numbers), stages)
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


def _chain(graph: onnx.GraphProto) -> list[str]:
    """The tensors that a stem's convolutions and residual sums hand on: behind the ReLU6 where there is one."""
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    filters = convolutions(graph)
    found = {node.input[0]: None for node in graph.node if node.name in filters}
    for node in graph.node:
        if node.name not in filters and not (node.op_type == "Add" and _STAGE.match(node.name)):
            continue
        (output,) = node.output
        if any(user.op_type != "Clip" for user in users[output]):
            found[output] = None
    return list(found)


def _readers(graph: onnx.GraphProto, chain: Sequence[str], numbers: Mapping[str, int]) -> dict[str, int]:
    """What else reads the chain, with the number of the last stage that it reads of: sums, pools, concatenations."""
    stage: dict[str, int] = {}
    readers: dict[str, int] = {}
    for node in graph.node:
        found = _STAGE.match(node.name)
        if found is not None:
            stage |= dict.fromkeys(node.output, int(found[1]))
        read = [name for name in node.input if name in chain]
        if read and node.name not in numbers:
            readers[node.name] = int(found[1]) if found is not None else max(stage[name] for name in read)
    return readers


def _quantise_chain(
    graph: onnx.GraphProto, chain: Sequence[str], moments: Mapping[str, Moments], ranges: Mapping[str, Range]
) -> None:
    """Puts one pair behind every tensor of a stem's chain and one before every weight and bias, in place.

    With both sides in bytes ONNX Runtime makes one kernel of convolution, ReLU6 and rounding, and of a sum. A ReLU6
    stays in the graph: a range within its own makes it void, and it is there again where a stage is left alone.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    scales: dict[str, np.float32] = {}
    added: list[onnx.NodeProto] = []
    for name in chain:
        low, high = float(ranges[name].low), float(ranges[name].high)
        scales[name] = np.float32(max((high - low) / 255, np.finfo(np.float32).tiny))
        zero = np.uint8(np.clip(np.round(-low / scales[name]), 0, 255))
        for node in graph.node:
            node.input[:] = [name + _READ if read == name else read for read in node.input]
        added += _pair(graph, name, np.asarray(scales[name]), np.asarray(zero))
    for node in graph.node:
        if node.name not in moments:
            continue
        weight, bias = (numpy_helper.to_array(constants[name]) for name in node.input[1:])
        step = scales[node.input[0].removesuffix(_READ)]
        scale = _weight_scales(weight, bias, float(step))
        rounded, shift = round_weights(weight, scale, moments[node.name])
        exact = (step * scale).astype(np.float32)
        whole = np.clip(np.round((bias + shift) / exact), -_LARGEST_INT32, _LARGEST_INT32).astype(np.int32)
        for position, values, by in ((1, rounded, scale), (2, whole, exact)):
            added.append(_read_bytes(graph, node.input[position], values, by))
            node.input[position] += _READ
    _sort(graph, added)


def _weight_scales(
    weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32], step: float
) -> npt.NDArray[np.float32]:
    """Of each output channel, as small as its weights allow, and as its bias does, which has 32 bits."""
    by_weight = np.abs(weight).max(axis=(1, 2, 3)) / 127
    by_bias = np.abs(bias) / (step * _LARGEST_INT32) * 1.001
    return np.asarray(np.maximum(np.maximum(by_weight, by_bias), np.finfo(np.float32).tiny), np.float32)


def _round_marked(graph: onnx.GraphProto, plain: onnx.GraphProto, moments: Mapping[str, Moments]) -> None:
    """Rounds the convolutions' weights anew where ONNX Runtime's quantiser took the nearest, and mends their biases.

    In place. The biases get other names: a stage that is left alone reads its own again.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    exact = {tensor.name: tensor for tensor in plain.initializer}
    before = {node.name: node.input for node in plain.node}
    readers = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    for node in graph.node:
        if node.name not in moments:
            continue
        stored, scale = readers[node.input[1]].input[:2]
        weight, bias = (numpy_helper.to_array(exact[name]) for name in before[node.name][1:])
        rounded, shift = round_weights(weight, numpy_helper.to_array(constants[scale]), moments[node.name])
        constants[stored].CopyFrom(numpy_helper.from_array(rounded, stored))
        mended = f"{node.input[2]}_mended"
        graph.initializer.append(numpy_helper.from_array((bias + shift).astype(bias.dtype), mended))
        node.input[2] = mended


def _pair(
    graph: onnx.GraphProto, name: str, scale: npt.NDArray[np.float32], zero: npt.NDArray[np.uint8]
) -> list[onnx.NodeProto]:
    """A tensor's way into bytes and out of them."""
    by = [f"{name}_scale", f"{name}_zero_point"]
    graph.initializer.extend([numpy_helper.from_array(scale, by[0]), numpy_helper.from_array(zero, by[1])])
    stored = f"{name}_bytes"
    return [
        helper.make_node("QuantizeLinear", [name, *by], [stored], f"{name}/QuantizeLinear"),
        helper.make_node("DequantizeLinear", [stored, *by], [name + _READ], f"{name}/DequantizeLinear"),
    ]


def _read_bytes(
    graph: onnx.GraphProto, name: str, values: npt.NDArray[np.signedinteger], scale: npt.NDArray[np.float32]
) -> onnx.NodeProto:
    """Stores a constant as whole numbers, and gives the node that reads them; what it was goes with `leave_alone`."""
    names = [f"{name}_quantized", f"{name}_scale", f"{name}_zero_point"]
    stored: list[npt.NDArray[Any]] = [values, scale, np.zeros(scale.shape, values.dtype)]
    graph.initializer.extend(numpy_helper.from_array(part, at) for part, at in zip(stored, names, strict=True))
    return helper.make_node("DequantizeLinear", names, [name + _READ], f"{name}/DequantizeLinear", axis=0)


def _sort(graph: onnx.GraphProto, added: Sequence[onnx.NodeProto]) -> None:
    """Puts each of the added nodes right behind what it reads."""
    waiting: dict[str, list[onnx.NodeProto]] = {}
    for node in added:
        waiting.setdefault(node.input[0], []).append(node)
    order: list[onnx.NodeProto] = []

    def place(node: onnx.NodeProto) -> None:
        order.append(node)
        for output in node.output:
            for follower in waiting.get(output, []):
                place(follower)

    for name in [tensor.name for tensor in graph.initializer if tensor.name in waiting]:
        for node in waiting[name]:
            place(node)
    for node in list(graph.node):
        place(node)
    del graph.node[:]
    graph.node.extend(order)


def _stored_in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """What was left alone is stored as the plain graph's weights are."""
    opened = ir.serde.deserialize_model(model)
    store_in_half(opened.graph)
    return ir.serde.serialize_model(opened)
