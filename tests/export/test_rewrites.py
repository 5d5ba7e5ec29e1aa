from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from kanoclip.export import onnx_writer
from kanoclip.export.graph import DeployGraph
from kanoclip.export.onnx_writer import BatchSpec, write_onnx
from kanoclip.export.rewrites import STORED_IN_HALF_FROM

SIZE = (48, 48)
FRAMES = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), dtype=np.uint8)


def written(model, path, precision="fp32"):
    write_onnx(DeployGraph(model, ["bolt"], precision), SIZE, BatchSpec(), 18, path)
    return onnx.load(path)


def loaded(path, optimised=None):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if optimised is not None:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(optimised)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def answers(path):
    return loaded(path).run(["map", "score"], {"frame": FRAMES})


@pytest.fixture
def halved(make_tiny):
    """A model whose weights came in fp16, as most published CLIPs do."""
    model = make_tiny().model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())
    return model


def without(monkeypatch, rewrite):
    monkeypatch.setattr(onnx_writer, rewrite, lambda graph: None)


def test_onnx_runtime_makes_one_kernel_of_every_gelu(halved, tmp_path, monkeypatch):
    kinds = {}
    for name in ("with", "without"):
        if name == "without":
            without(monkeypatch, "reorder_gelu")
        graph = written(halved, tmp_path / f"{name}.onnx").graph
        count = sum(node.op_type == "Erf" for node in graph.node)
        loaded(tmp_path / f"{name}.onnx", tmp_path / "optimised.onnx")
        optimised = onnx.load(tmp_path / "optimised.onnx").graph
        kinds[name] = [node.op_type for node in optimised.node]
    assert count >= 4, "one in every block and one in the adapter"
    assert (kinds["with"].count("Gelu"), kinds["with"].count("Erf")) == (count, 0)
    assert (kinds["without"].count("Gelu"), kinds["without"].count("Erf")) == (0, count), "ONNX Runtime learnt it"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_order_of_gelus_factors_changes_nothing(halved, tmp_path, monkeypatch, precision):
    plain = ort.SessionOptions()
    plain.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    got = []
    for name in ("with", "without"):
        if name == "without":
            without(monkeypatch, "reorder_gelu")
        path = tmp_path / f"{name}.onnx"
        written(halved, path, precision)
        session = ort.InferenceSession(str(path), plain, providers=["CPUExecutionProvider"])
        got.append(session.run(["map", "score"], {"frame": FRAMES}))
    for with_it, without_it in zip(*got, strict=True):
        np.testing.assert_array_equal(with_it, without_it)


def test_weights_that_came_in_fp16_take_half_the_room_and_give_the_same_bits(halved, tmp_path, monkeypatch):
    small = written(halved, tmp_path / "small.onnx")
    without(monkeypatch, "store_in_half")
    written(halved, tmp_path / "large.onnx")
    onnx.checker.check_model(small, full_check=True)
    sizes = [(tmp_path / f"{name}.onnx").stat().st_size for name in ("small", "large")]
    assert sizes[0] < 0.7 * sizes[1], sizes
    for one, other in zip(answers(tmp_path / "small.onnx"), answers(tmp_path / "large.onnx"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_nothing_is_cast_while_a_frame_waits(halved, tmp_path):
    written(halved, tmp_path / "small.onnx")
    loaded(tmp_path / "small.onnx", tmp_path / "optimised.onnx")
    casts = [node.input[0] for node in onnx.load(tmp_path / "optimised.onnx").graph.node if node.op_type == "Cast"]
    assert casts == ["frame"]


def test_a_weight_that_fp16_cannot_hold_stays_whole(make_tiny, tmp_path):
    model = make_tiny().model
    with torch.no_grad():
        for block in model.tower.blocks:
            block.fc.weight[0, 0] = 1e6
    graph = written(model, tmp_path / "model.onnx").graph
    types = {tensor.name: tensor for tensor in graph.initializer}
    large = [tensor for tensor in types.values() if np.prod(tensor.dims) >= STORED_IN_HALF_FROM]
    assert large and all(tensor.data_type == onnx.TensorProto.FLOAT for tensor in large)
