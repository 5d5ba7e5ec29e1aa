"""The graph that gives the distances to a memory: the shipped bundles' against numpy, and what has none."""

from __future__ import annotations

import random
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from kanoclip.runtime.bundle.bundle import Bundle, shipped_bundle
from kanoclip.runtime.bundle.distance_graph import distance_graph
from kanoclip.runtime.detect.reference.fused import nearest
from kanoclip.runtime.detect.reference.smoothing import smooth
from kanoclip.runtime.engines.inputs import Inputs
from kanoclip.runtime.engines.reference import probe_memory
from kanoclip.runtime.errors import BundleError

SHIPPED = [shipped_bundle(), shipped_bundle().with_name("nano-int8.kanoclip")]


@pytest.mark.parametrize("place", SHIPPED, ids=lambda place: place.stem)
def test_distances_of_what_is_shipped(place):
    bundle = Bundle.open(place)
    found = distance_graph(bundle.model_path)
    model = onnx.load_from_string(found)
    onnx.checker.check_model(model, full_check=True)
    whole = onnx.load(bundle.model_path).graph
    assert [value.name for value in model.graph.input] == ["frame", "memory", "memory_bias", "memory_centre"]
    assert len(model.graph.node) < len(whole.node) / 2, "the zero-shot map's part is gone"
    assert not [node.name for node in model.graph.node if node.name.startswith(("tower.", "head."))]

    frame = np.random.default_rng(0).integers(0, 256, (1, *bundle.manifest.frame_size, 3), np.uint8)
    memory, info = probe_memory(bundle.manifest), bundle.manifest.descriptor
    given = Inputs.of(bundle.manifest, frame, None, memory).arrays()
    session = onnxruntime.InferenceSession(found)
    (distances,) = session.run(None, {name: given[name] for name in ("frame", *list(given)[1:4])})
    (descriptors,) = onnxruntime.InferenceSession(bundle.model_path).run(["descriptor"], given)
    wanted = smooth(nearest(descriptors, memory).reshape(-1, *info.grid), bundle.manifest.model.image_size)
    assert distances.dtype == np.float32 and distances.shape == wanted.shape
    np.testing.assert_allclose(distances, wanted, atol=1e-5)
    assert distances.std() > 1e-3, "nothing is compared by a map that is the same everywhere"


def test_a_graph_without_a_memory_has_none(make_toy_bundle, tmp_path):
    assert distance_graph(make_toy_bundle(tmp_path, grid=(4, 4)) / "model.onnx") is None


def test_weights_in_another_file_are_not_held_twice(tmp_path):
    shutil.copy(SHIPPED[0] / "model.onnx", tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location="model.onnx.data")
    assert distance_graph(tmp_path / "model.onnx") is None


def test_what_is_no_graph(tmp_path):
    whole = (SHIPPED[0] / "model.onnx").read_bytes()
    empty = helper.make_model(helper.make_graph([], "g", [], []), producer_name="p").SerializeToString()
    no_graph = onnx.ModelProto(producer_name="p").SerializeToString()
    for number, data in enumerate((whole[: len(whole) // 2], b"\xff" * 100, no_graph)):
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(data)
        with pytest.raises(BundleError, match=rf"{number}.onnx is no ONNX graph"):
            distance_graph(path)
    (tmp_path / "empty.onnx").write_bytes(empty)
    assert distance_graph(tmp_path / "empty.onnx") is None


def small_graph():
    """One that computes distances as far as names go, and something beside them."""
    nodes = [
        helper.make_node("Cast", ["frame"], ["x"], "front/cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "w"], ["zero"], "head/mul"),
        helper.make_node("ReduceMean", ["x", "axes"], ["cells"], "memory/mean", keepdims=0),
        helper.make_node("Add", ["cells", ""], ["d"], "memory.smoothing/add"),
        helper.make_node("Add", ["d", "zero"], ["map"], "memory/fuse"),
    ]
    values = [
        helper.make_tensor("w", TensorProto.FLOAT, [1], [2.0]),
        helper.make_tensor("axes", TensorProto.INT64, [1], [3]),
    ]
    frame = helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, 8, 8, 3])
    index = helper.make_tensor_value_info("class_index", TensorProto.INT64, [1])
    answer = helper.make_tensor_value_info("map", TensorProto.FLOAT, [1, 8, 8])
    return helper.make_model(helper.make_graph(nodes, "g", [frame, index], [answer], values))


def test_what_stays(tmp_path):
    (tmp_path / "m.onnx").write_bytes(small_graph().SerializeToString())
    graph = onnx.load_from_string(distance_graph(tmp_path / "m.onnx")).graph
    assert [node.output[0] for node in graph.node] == ["x", "cells", "d"]
    assert [tensor.name for tensor in graph.initializer] == ["axes"]
    assert [value.name for value in graph.input] == ["frame"]
    (output,) = graph.output
    assert output.name == "d" and [axis.dim_value for axis in output.type.tensor_type.shape.dim] == [1, 8, 8]


def test_damage_anywhere_is_one_line_or_a_graph(tmp_path):
    data, path = small_graph().SerializeToString(), tmp_path / "m.onnx"
    for seed in range(300):
        rng = random.Random(seed)
        broken = bytearray(data)
        for _ in range(rng.randint(1, 6)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        path.write_bytes(bytes(broken))
        try:
            distance_graph(path)
        except BundleError as error:
            assert len(str(error).splitlines()) == 1
