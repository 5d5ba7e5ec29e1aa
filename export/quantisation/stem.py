"""A stem's convolutions in whole numbers: which they are, and how their weights and biases are rounded.

For CPUs their whole chain is: biases, outputs and residual sums, so that one convolution hands bytes to the next.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from kanoclip.export.quantisation.calibration import Moments, Range, round_weights

_STAGE = re.compile(r"^front\.stem\.trunk\.groups\.(\d+)\.")
_READ = "_read"
"""What is added to a tensor's name for what its readers get of its bytes."""
_LARGEST_INT32 = 2**31 - 1


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


def chain_of(graph: onnx.GraphProto) -> list[str]:
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


def readers_of(graph: onnx.GraphProto, chain: Sequence[str], numbers: Mapping[str, int]) -> dict[str, int]:
    """What else reads the chain, with the number of the last stage that it reads of: sums, pools, concatenations.

    Args:
        graph: The plain graph.
        chain: Of `chain_of`.
        numbers: Names of the quantised layers, which are left out.
    """
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


def quantise_chain(
    graph: onnx.GraphProto, chain: Sequence[str], moments: Mapping[str, Moments], ranges: Mapping[str, Range]
) -> None:
    """Puts one pair behind every tensor of a stem's chain and one before every weight and bias, in place.

    With both sides in bytes ONNX Runtime makes one kernel of convolution, ReLU6 and rounding, and of a sum. A ReLU6
    stays in the graph: a range within its own makes it void, and it is there again where a stage is left alone.

    Args:
        graph: With pairs around the matrices, none around the convolutions.
        chain: Of `chain_of`.
        moments: Of what each convolution sees, by its name.
        ranges: Of every tensor of the chain.
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


def round_marked(graph: onnx.GraphProto, plain: onnx.GraphProto, moments: Mapping[str, Moments]) -> None:
    """Rounds the convolutions' weights anew where ONNX Runtime's quantiser took the nearest, and mends their biases.

    In place. The biases get other names: a stage that is left alone reads its own again.

    Args:
        graph: With pairs around the convolutions.
        plain: The graph without any.
        moments: Of what each convolution sees, by its name.
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
