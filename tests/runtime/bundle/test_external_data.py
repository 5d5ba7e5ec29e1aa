"""A graph's weights come from files that the manifest lists, wherever in the graph a tensor hides."""

from __future__ import annotations

import json
import random
import shutil

import onnx
import pytest
from onnx import TensorProto, helper

from kanoclip.runtime.bundle.bundle import Bundle, sha256_of
from kanoclip.runtime.bundle.external_data import external_files
from kanoclip.runtime.errors import BundleError


def outside(name, location):
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=location)
    return tensor


def graph(*nodes, **more):
    return helper.make_graph(list(nodes), "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])], **more)


def hiding_places(location):
    """A graph for each place where ONNX may have a tensor."""
    tensor = outside("w", location)
    constant = helper.make_node("Constant", [], ["y"], value=tensor)
    yield helper.make_model(graph(helper.make_node("Identity", ["w"], ["y"]), initializer=[tensor]))
    yield helper.make_model(graph(constant))
    yield helper.make_model(graph(helper.make_node("If", ["c"], ["y"], then_branch=graph(constant))))
    several = helper.make_node("Odd", [], ["y"])
    several.attribute.add(name="t", type=onnx.AttributeProto.TENSORS).tensors.append(tensor)
    yield helper.make_model(graph(several))
    sparse = helper.make_node("Odd", [], ["y"])
    sparse.attribute.add(name="s", type=onnx.AttributeProto.SPARSE_TENSOR).sparse_tensor.values.CopyFrom(tensor)
    yield helper.make_model(graph(sparse))
    function = helper.make_function("f", "F", [], ["y"], [constant], [helper.make_opsetid("", 18)])
    yield helper.make_model(graph(helper.make_node("F", [], ["y"], domain="f")), functions=[function])
    model = helper.make_model(graph())
    model.graph.sparse_initializer.add().indices.CopyFrom(tensor)
    yield model
    model = helper.make_model(graph())
    model.training_info.add().initialization.CopyFrom(graph(constant))
    yield model


@pytest.mark.parametrize("number", range(8))
def test_every_hiding_place(tmp_path, number):
    (tmp_path / "m.onnx").write_bytes(list(hiding_places("../secret"))[number].SerializeToString())
    assert external_files(tmp_path / "m.onnx") == {"../secret"}


def replace_graph(bundle, model):
    (bundle / "model.onnx").write_bytes(model)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["model.onnx"] = {"size": len(model), "sha256": sha256_of(bundle / "model.onnx")}
    (bundle / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("location", ["weights.bin", "../x", "/etc/passwd", "./manifest.json", ""])
def test_a_bundle_lists_all(toy_bundle, tmp_path, location):
    own = shutil.copytree(toy_bundle, tmp_path / "own.kanoclip")
    replace_graph(own, next(hiding_places(location)).SerializeToString())
    (own / "weights.bin").write_bytes(bytes(4))
    with pytest.raises(BundleError, match=r"model\.onnx takes weights from .* which manifest\.json does not list"):
        Bundle.open(own)


def test_damaged_graphs_give_an_answer(tmp_path):
    whole = next(hiding_places("weights.bin")).SerializeToString()
    draw = random.Random(24)
    path = tmp_path / "m.onnx"
    for _ in range(300):
        spoilt = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            spoilt[draw.randrange(len(spoilt))] = draw.randrange(256)
        path.write_bytes(spoilt[: draw.randint(1, len(spoilt))])
        try:
            external_files(path)
        except BundleError as error:
            assert "is no ONNX graph" in str(error)
    path.write_bytes(b"\x3a\x0alocation\xff\xff")
    with pytest.raises(BundleError):
        external_files(path)
