"""What an exported graph must and must not contain, read from the ONNX file itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from kanoclip.runtime.bundle.manifest.signature import DESCRIPTOR, MEMORY_INPUTS
from kanoclip.runtime.errors import ExportError

FORBIDDEN = {
    "GridSample": "TensorRT's parser has run it as nearest",
    "Einsum": "it hides a MatMul from the precision rules",
    "Loop": "control flow breaks CUDA graphs",
    "If": "control flow breaks CUDA graphs",
    "Scan": "control flow breaks CUDA graphs",
}
GEMMS = ("MatMul", "Gemm")
_OF_MEMORY = ("memory/", "memory.")
"""How the names of a reference memory's nodes begin: they stay float32 in a bf16 graph, which SM75 runs none of."""
FLOAT32 = ("fp32", "int8-cpu")
"""What is computed in float32, as CPUs do best; the rest is for tensor cores."""
QUANTISED = {
    "int8": (TensorProto.INT8,),
    "int8-cpu": (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32),
    "fp8": (TensorProto.FLOAT8E4M3FN,),
}
"""What each quantised precision stores: all but `int8-cpu`, with its convolutions' biases, as TensorRT takes it."""
CLIP_VOCABULARY = 49408


@dataclass(frozen=True)
class GraphFacts:
    """What was found.

    Attributes:
        attention_blocks: `MatMul -> Softmax -> MatMul` chains with one consumer per edge, which TensorRT can fuse.
        nodes: Number of operators.
    """

    attention_blocks: int
    nodes: int


def check_graph(path: Path, precision: str) -> GraphFacts:
    """Checks an ONNX file against the rules of its precision.

    Args:
        path: The ONNX file; of what lies beside it only zero points are read.
        precision: `fp32`, `fp16`, `bf16`, `int8`, `int8-cpu` or `fp8`.

    Returns:
        What was counted.

    Raises:
        ExportError: A rule is broken: a forbidden operator, a foreign domain, a wrong input or output type, a float32
            MatMul in a half-precision graph, a zero point or another format in a quantised graph, or a text encoder's
            vocabulary.
    """
    graph = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False)).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise ExportError(f"the graph holds {node.domain}::{node.op_type}, which TensorRT cannot read")
        if node.op_type in FORBIDDEN:
            raise ExportError(f"the graph holds {node.op_type}: {FORBIDDEN[node.op_type]}")
        exempt = precision == "bf16" and node.name.startswith(_OF_MEMORY)
        is_float = types.get(node.input[0]) == TensorProto.FLOAT if node.op_type in GEMMS else False
        if precision not in FLOAT32 and is_float and not exempt:
            raise ExportError(f"the {precision} graph holds a float32 {node.op_type} ({node.name}): SM75 refuses it")
    if precision in QUANTISED:
        _check_quantised(graph, precision, path.parent)
    if any(CLIP_VOCABULARY in tensor.dims for tensor in graph.initializer):
        raise ExportError("the graph holds a token embedding: the text encoder was not baked away")
    wanted = {"frame": TensorProto.UINT8, "map": TensorProto.FLOAT, "score": TensorProto.FLOAT}
    inputs = {value.name for value in graph.input}
    if "class_index" in inputs:
        wanted["class_index"] = TensorProto.INT64
    if inputs.intersection(MEMORY_INPUTS):  # all or none
        wanted |= dict.fromkeys(MEMORY_INPUTS, TensorProto.FLOAT)
    if any(value.name == DESCRIPTOR for value in graph.output):  # not every exported model has descriptors
        wanted[DESCRIPTOR] = TensorProto.FLOAT
    found = {value.name: types[value.name] for value in (*graph.input, *graph.output)}
    if found != wanted:
        raise ExportError(f"the graph's inputs and outputs are {found}, expected {wanted}")
    return GraphFacts(count_attention(graph), len(graph.node))


def _check_quantised(graph: onnx.GraphProto, precision: str, folder: Path) -> None:
    """TensorRT knows symmetric int8 and float8 only; a graph without any would be quantised by name.

    For a CPU activations are uint8 with a zero point; weights are symmetric everywhere.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    quantised = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    if not quantised:
        raise ExportError(f"the {precision} graph quantises nothing")
    for node in quantised:
        zero_point = constants.get(node.input[2]) if len(node.input) > 2 else None
        if zero_point is None or zero_point.data_type not in QUANTISED[precision]:
            raise ExportError(f"the {precision} graph holds {node.op_type} of another format ({node.name})")
        symmetric = zero_point.data_type != TensorProto.UINT8
        if symmetric and onnx.numpy_helper.to_array(zero_point, str(folder)).any():
            raise ExportError(
                f"the {precision} graph holds a zero point that is not 0 ({node.name}): TensorRT refuses it, and CPUs "
                "are slow with it"
            )


def count_attention(graph: onnx.GraphProto) -> int:
    """Number of `MatMul -> Softmax(last axis) -> MatMul` chains whose edges have one consumer each."""
    producer = {name: node for node in graph.node for name in node.output}
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    count = 0
    for node in graph.node:
        if node.op_type != "Softmax" or _axis(node) != -1:
            continue
        before = producer.get(node.input[0])
        after = consumers.get(node.output[0], [])
        if before is None or before.op_type != "MatMul" or len(consumers[node.input[0]]) != 1:
            continue
        count += len(after) == 1 and after[0].op_type == "MatMul" and after[0].input[0] == node.output[0]
    return count


def _axis(softmax: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in softmax.attribute if attribute.name == "axis"), -1)
