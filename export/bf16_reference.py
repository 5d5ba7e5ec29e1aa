"""Runs a bf16 graph where no engine has bf16 kernels.

ONNX Runtime's CPU provider runs an fp16 graph by computing each operator in float32 and rounding its result. It does
not do the same for bf16, so this does: every operator that reads or writes bf16 gets casts around it. The rounding of
every tensor to bf16 stays, so drift measured with it is that of the bf16 graph with float32 accumulation.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper


def emulate_bf16(source: Path, target: Path) -> None:
    """Writes a copy of a bf16 ONNX file that computes in float32 and rounds every result to bf16.

    Args:
        source: The graph to ship.
        target: Where to write the copy (its weights go to `target`.data).
    """
    model = onnx.shape_inference.infer_shapes(onnx.load(source))
    graph = model.graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    half = {name for name, kind in types.items() if kind == TensorProto.BFLOAT16}
    nodes: list[onnx.NodeProto] = []
    for number, node in enumerate(graph.node):
        if node.op_type == "Cast":
            nodes.append(node)
            continue
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for index, name in enumerate(node.input):
            if name in half:
                copy.input[index] = f"{name}/as_float/{number}/{index}"
                nodes.append(helper.make_node("Cast", [name], [copy.input[index]], to=TensorProto.FLOAT))
        nodes.append(copy)
        for index, name in enumerate(node.output):
            if name in half:
                copy.output[index] = f"{name}/unrounded"
                nodes.append(helper.make_node("Cast", [copy.output[index]], [name], to=TensorProto.BFLOAT16))
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    onnx.save(model, target, save_as_external_data=True, location=target.name + ".data")
