from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from kanoclip.export.checks import check_graph
from kanoclip.export.graph import DeployGraph
from kanoclip.export.onnx_writer import BatchSpec, write_onnx
from kanoclip.export.quantize import quantizable, quantize
from kanoclip.runtime.errors import ExportError

SIZE = (48, 48)


def frames(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8) for _ in range(count)]


def written(model, path, classes=("bolt",), batch=BatchSpec(), opset=19):  # noqa: B008 (frozen)
    write_onnx(DeployGraph(model, list(classes), "int8"), SIZE, batch, opset, path)
    return path


@pytest.fixture(scope="module")
def pair(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8")
    source, target = written(tiny.model, folder / "fp16.onnx"), folder / "int8.onnx"
    seen = []
    count = quantize(source, target, frames(4), 1, seen.append)
    return source, target, count, seen


def test_the_towers_matrices_are_int8_and_nothing_else_is(pair):
    source, target, count, seen = pair
    graph = onnx.load(target).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    quantised = {
        node.name
        for node in graph.node
        if node.op_type in ("MatMul", "Gemm")
        and all(producers.get(name, node).op_type == "DequantizeLinear" for name in node.input[:2])
    }
    assert quantised == set(quantizable(onnx.load(source).graph)) and len(quantised) == count > 8
    assert not any(name.startswith("head") for name in quantised)
    weights = [
        constants[node.input[0]]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    ]
    assert weights and all(weight.data_type == onnx.TensorProto.INT8 for weight in weights)
    scales = [
        numpy_helper.to_array(constants[node.input[1]]) for node in graph.node if node.op_type == "DequantizeLinear"
    ]
    assert {scale.dtype for scale in scales} == {np.dtype(np.float16)}
    assert {scale.ndim for scale in scales} == {0, 1}, "activations per tensor, weights per channel"
    assert seen == [0.25, 0.5, 0.75, 1.0]
    check_graph(target, "int8")


def test_each_pair_of_an_activation_has_one_consumer(pair):
    graph = onnx.load(pair[1]).graph
    constants = {tensor.name for tensor in graph.initializer}
    uses = {}
    for node in graph.node:
        for name in node.input:
            uses[name] = uses.get(name, 0) + 1
    activations = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] not in constants]
    assert activations and all(uses[node.output[0]] == 1 for node in activations)


def test_answers_stay_close(pair):
    source, target, _, _ = pair
    for frame in frames(3, seed=9):
        one, other = (
            ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"frame": frame[None]})
            for path in (source, target)
        )
        assert 0 < np.abs(one[0] - other[0]).max() < 0.1 and np.abs(one[1] - other[1]).max() < 0.05


@pytest.mark.parametrize("batch", [BatchSpec(3), BatchSpec(3, dynamic=True)])
def test_batches_and_several_classes(tiny, tmp_path, batch):
    source = written(tiny.model, tmp_path / "a.onnx", ("bolt", "nut"), batch)
    quantize(source, tmp_path / "b.onnx", frames(2), 1 if batch.dynamic else 3, lambda _: None)
    session = ort.InferenceSession(str(tmp_path / "b.onnx"), providers=["CPUExecutionProvider"])
    fed = {"frame": np.stack(frames(3)), "class_index": np.array([0, 1, 0])}
    maps, scores = session.run(None, fed)
    assert maps.shape == (3, *SIZE) and np.isfinite(scores).all()
    assert check_graph(tmp_path / "b.onnx", "int8").attention_blocks == check_graph(source, "fp16").attention_blocks


def test_without_pictures_there_is_nothing_to_calibrate_on(tiny, tmp_path):
    source = written(tiny.model, tmp_path / "a.onnx")
    with pytest.raises(ExportError, match="at least one picture"):
        quantize(source, tmp_path / "b.onnx", [], 1, lambda _: None)
    assert not (tmp_path / "b.onnx").exists()


def test_an_int8_graph_without_int8_or_with_zero_points_is_refused(pair, tmp_path):
    with pytest.raises(ExportError, match="quantises nothing"):
        check_graph(pair[0], "int8")
    model = onnx.load(pair[1])
    node = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    zero = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[2])
    zero.CopyFrom(numpy_helper.from_array(np.int8(3), zero.name))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ExportError, match="zero point"):
        check_graph(tmp_path / "m.onnx", "int8")
