from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper

from kanoclip.export.bf16_reference import emulate_bf16


def test_every_result_is_rounded_to_bf16(tmp_path):
    """Against torch's own bf16 arithmetic, operator by operator, bit for bit."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 8)).astype(np.float32)
    weight = torch.from_numpy(rng.normal(size=(8, 3)).astype(np.float32)).bfloat16()
    stored = numpy_helper.from_array(weight.float().numpy(), "w32")
    nodes = [
        helper.make_node("Cast", ["x"], ["xb"], to=TensorProto.BFLOAT16),
        helper.make_node("Cast", ["w32"], ["wb"], to=TensorProto.BFLOAT16),
        helper.make_node("MatMul", ["xb", "wb"], ["product"]),
        helper.make_node("Add", ["product", "product"], ["sum"]),
        helper.make_node("Mul", ["sum", "product"], ["square"]),
        helper.make_node("Cast", ["square"], ["y"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 3])],
        [stored],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "a.onnx")
    emulate_bf16(tmp_path / "a.onnx", tmp_path / "b.onnx")
    (y,) = ort.InferenceSession(str(tmp_path / "b.onnx"), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    product = torch.from_numpy(x).bfloat16() @ weight
    want = ((product + product) * product).float().numpy()
    unrounded = (torch.from_numpy(x).bfloat16().float() @ weight.float()) ** 2 * 2
    assert np.abs(y - unrounded.numpy()).max() > 1e-3
    np.testing.assert_array_equal(y, want)
