from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kanoclip.export.checks import check_graph, count_attention
from kanoclip.runtime.errors import ExportError


def save(path, nodes, initializers=(), extra_inputs=(), frame=TensorProto.UINT8, score=TensorProto.FLOAT, more=()):
    inputs = [helper.make_tensor_value_info("frame", frame, [1, 8, 8, 3]), *extra_inputs]
    outputs = [
        helper.make_tensor_value_info("map", TensorProto.FLOAT, [1, 8, 8]),
        helper.make_tensor_value_info("score", score, [1]),
        *more,
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(a, n) for n, a in initializers])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.example", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), path)
    return path


def base_nodes():
    return [
        helper.make_node("Cast", ["frame"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "last"], ["map"], keepdims=0),
        helper.make_node("ReduceMax", ["map", "both"], ["score"], keepdims=0),
    ]


LAST, BOTH = ("last", np.array([3])), ("both", np.array([1, 2]))


def test_plain_graph_passes(tmp_path):
    facts = check_graph(save(tmp_path / "m.onnx", base_nodes(), [LAST, BOTH]), "fp32")
    assert facts.nodes == 3 and facts.attention_blocks == 0


def test_grid_sample_is_refused(tmp_path):
    grid = np.zeros((1, 8, 8, 2), np.float32)
    nodes = [
        helper.make_node("Cast", ["frame"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["chw"], perm=[0, 3, 1, 2]),
        helper.make_node("GridSample", ["chw", "grid"], ["sampled"]),
        helper.make_node("ReduceMean", ["sampled", "channels"], ["map"], keepdims=0),
        helper.make_node("ReduceMax", ["map", "both"], ["score"], keepdims=0),
    ]
    path = save(tmp_path / "m.onnx", nodes, [("grid", grid), ("channels", np.array([1])), BOTH])
    with pytest.raises(ExportError, match="GridSample"):
        check_graph(path, "fp32")


def test_foreign_domain_is_refused(tmp_path):
    nodes = [*base_nodes(), helper.make_node("Thing", ["map"], ["unused"], domain="com.example")]
    with pytest.raises(ExportError, match=r"com\.example::Thing"):
        check_graph(save(tmp_path / "m.onnx", nodes, [LAST, BOTH]), "fp32")


@pytest.mark.parametrize("name", ["memory/node_linear", "memory.smoothing/node_matmul"])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_float32_matmul_is_refused_beside_half_precision(tmp_path, precision, name):
    nodes = [
        helper.make_node("Cast", ["frame"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["pixels", "weight"], ["mixed"], name="guilty"),
        helper.make_node("ReduceMean", ["mixed", "last"], ["map"], keepdims=0),
        helper.make_node("ReduceMax", ["map", "both"], ["score"], keepdims=0),
    ]
    path = save(tmp_path / "m.onnx", nodes, [("weight", np.eye(3, dtype=np.float32)), LAST, BOTH])
    check_graph(path, "fp32")
    with pytest.raises(ExportError, match="guilty"):
        check_graph(path, precision)
    nodes[1].name = name
    of_memory = save(tmp_path / "memory.onnx", nodes, [("weight", np.eye(3, dtype=np.float32)), LAST, BOTH])
    if precision == "bf16":  # too coarse for a memory's cosines, and for no GPU that refuses float32 beside it
        check_graph(of_memory, precision)
    else:
        with pytest.raises(ExportError, match=name):
            check_graph(of_memory, precision)


def test_text_encoder_is_refused(tmp_path):
    nodes = [*base_nodes(), helper.make_node("Gather", ["embedding", "both"], ["unused"])]
    embedding = ("embedding", np.zeros((49408, 2), np.float32))
    with pytest.raises(ExportError, match="text encoder"):
        check_graph(save(tmp_path / "m.onnx", nodes, [LAST, BOTH, embedding]), "fp32")


@pytest.mark.parametrize("change", [{"frame": TensorProto.FLOAT}, {"score": TensorProto.DOUBLE}])
def test_wrong_types_at_the_door_are_refused(tmp_path, change):
    with pytest.raises(ExportError, match="inputs and outputs"):
        check_graph(save(tmp_path / "m.onnx", base_nodes(), [LAST, BOTH], **change), "fp32")


def descriptor_nodes(kind):
    return [
        *base_nodes(),
        helper.make_node("Reshape", ["pixels", "cells"], ["cells_of_3"]),
        helper.make_node("Cast", ["cells_of_3"], ["descriptor"], to=kind),
    ]


def test_descriptors_are_a_third_output_of_float32(tmp_path):
    constants = [LAST, BOTH, ("cells", np.array([1, 64, 3]))]
    for kind in (TensorProto.FLOAT, TensorProto.FLOAT16):
        more = [helper.make_tensor_value_info("descriptor", kind, [1, 64, 3])]
        path = save(tmp_path / "m.onnx", descriptor_nodes(kind), constants, more=more)
        if kind == TensorProto.FLOAT:
            assert check_graph(path, "fp32").nodes == 5
        else:
            with pytest.raises(ExportError, match=r"inputs and outputs are .*'descriptor': 10.*expected"):
                check_graph(path, "fp32")


def test_any_other_third_output_is_refused(tmp_path):
    more = [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 8, 8, 3])]
    with pytest.raises(ExportError, match=r"inputs and outputs are .*'pixels'"):
        check_graph(save(tmp_path / "m.onnx", base_nodes(), [LAST, BOTH], more=more), "fp32")


def attention_graph(axis=-1, between=False, shared=False):
    nodes = [helper.make_node("MatMul", ["q", "k"], ["logits"])]
    nodes.append(helper.make_node("Softmax", ["logits"], ["weights"], axis=axis))
    last = "weights"
    if between:
        nodes.append(helper.make_node("Relu", ["weights"], ["changed"]))
        last = "changed"
    nodes.append(helper.make_node("MatMul", [last, "v"], ["out"]))
    if shared:
        nodes.append(helper.make_node("Relu", ["weights"], ["other"]))
    return helper.make_graph(nodes, "g", [], [])


@pytest.mark.parametrize(
    ("options", "count"), [({}, 1), ({"axis": 1}, 0), ({"between": True}, 0), ({"shared": True}, 0)]
)
def test_attention_pattern(options, count):
    assert count_attention(attention_graph(**options)) == count
