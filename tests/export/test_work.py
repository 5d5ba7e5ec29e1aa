"""What a graph has to do is counted, not guessed: by hand on a small graph, and for any batch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kanoclip.export.work import count_work, gemm_flops
from kanoclip.runtime.bundle.bundle import Bundle, shipped_bundle
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


def test_a_dynamic_batch_is_counted_as_if_it_were_static(tmp_path):
    dynamic, static = save(tmp_path / "d.onnx", "batch"), save(tmp_path / "s.onnx", 3)
    assert gemm_flops(dynamic, 3) == gemm_flops(static)


def test_work_is_a_frames_share_and_weights_count_once(tmp_path):
    two = count_work(save(tmp_path / "m.onnx", 2), 2)
    assert two.gemm_flops == (2 * (2 * 4 * 7) * 5 + 2 * (3 * 7) * 5 + 2 * (6 * 10 * 10) * 9) // 2
    assert two.weight_bytes == 4 * (5 * 7 + 7 + 6 * 9)
    fed, given = 2 * 4 * 5 + 5 * 3 + 600, 2 * 4 * 7 + 3 * 7 + 600
    assert two.frame_bytes == 4 * (fed + given) // 2


def test_the_shipped_bundle_says_what_its_graph_has_to_do():
    bundle = Bundle.open(shipped_bundle())
    assert bundle.manifest.work == count_work(bundle.model_path, bundle.manifest.max_batch)
    assert 1e9 < bundle.manifest.work.gemm_flops < 5e9
