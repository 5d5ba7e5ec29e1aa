from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kanoclip.benchmarks.flops import gemm_flops, plain_tower_flops
from kanoclip.runtime.bundle import find_bundle
from kanoclip.runtime.errors import ExportError


def save(path, batch):
    weights = {
        "w": np.zeros((5, 7), np.float32),
        "b": np.zeros(7, np.float32),
        "kernel": np.zeros((6, 1, 3, 3), np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Gemm", ["a", "w", "b"], ["z"], transA=1),
        helper.make_node("Conv", ["picture", "kernel"], ["convolved"], group=6, pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["y"], ["relu"]),
    ]
    inputs = {"x": [batch, 4, 5], "a": [5, 3], "picture": [1, 6, 10, 10]}
    outputs = {"relu": [batch, 4, 7], "z": [3, 7], "convolved": [1, 6, 10, 10]}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    return path


def test_counts_by_hand(tmp_path):
    assert gemm_flops(save(tmp_path / "m.onnx", 2)) == {
        "MatMul": 2 * (2 * 4 * 7) * 5,
        "Gemm": 2 * (3 * 7) * 5,
        "Conv": 2 * (6 * 10 * 10) * 9,
    }


def test_dynamic_shapes_are_refused(tmp_path):
    with pytest.raises(ExportError, match="static"):
        gemm_flops(save(tmp_path / "m.onnx", "batch"))


def test_plain_tower_is_what_a_vit_costs():
    """12 N C^2 multiply-adds of weights and 2 N^2 C of attention a block, the patch embedding and the projection."""
    tokens, width, layers, patch, joint = 37, 64, 4, 8, 64
    block = 12 * tokens * width**2 + 2 * tokens**2 * width
    want = 2 * (layers * block + (tokens - 1) * width * patch**2 * 3 + width * joint)
    assert sum(plain_tower_flops("random-tiny", (48, 48)).values()) == pytest.approx(want, rel=0.02)


def test_shipped_graph_costs_at_most_a_quarter_more_than_its_tower(tmp_path):
    bundle = find_bundle(None, tmp_path)
    command = [sys.executable, "-m", "kanoclip.benchmarks.flops", str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert 1.0 < json.loads(done.stdout)["ratio"] <= 1.25
