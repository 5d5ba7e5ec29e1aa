"""Which engine is built for a float32 graph: TF32, which every GPU since Ampere multiplies by, is emulated."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from kanoclip.runtime.bundle.bundle import Bundle, shipped_bundle
from kanoclip.runtime.engines.onnxruntime.backend import OnnxRuntimeBackend
from kanoclip.runtime.engines.reference import Reference
from kanoclip.runtime.engines.tensorrt.building import provide
from kanoclip.runtime.engines.tensorrt.device import DeviceInfo
from kanoclip.runtime.engines.tensorrt.flavour import Flavour
from kanoclip.runtime.errors import BackendError

GPU = DeviceInfo(0, "Fake RTX", "8.9", 13, "580.1", False)
FLAVOUR = Flavour("tensorrt", None, "10.3.0", 12)


def silent(step, share):
    pass


def in_tf32(source, target):
    """A graph whose products take their factors with 10 bits of mantissa, by Veltkamp's splitting."""
    model = onnx.load(source)
    graph, nodes = model.graph, []
    graph.initializer.append(numpy_helper.from_array(np.float32(2**13 + 1), "tf32.split"))
    for node in graph.node:
        if node.op_type in ("MatMul", "Gemm", "Conv"):
            for place in (0, 1):
                name = node.input[place]
                large, rest, high = (f"{node.name}.{place}.{part}" for part in ("large", "rest", "high"))
                nodes += [
                    helper.make_node("Mul", [name, "tf32.split"], [large]),
                    helper.make_node("Sub", [large, name], [rest]),
                    helper.make_node("Sub", [large, rest], [high]),
                ]
                node.input[place] = high
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, target)


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Bundle.open(shipped_bundle())


def provided(bundle, monkeypatch, engines):
    """Provides the engine for `bundle`; `engines` are the answers of one with TF32 and of one without."""
    reference = Reference(bundle)
    found = []

    def build(flavour, path, options, progress):
        return memoryview(b"tf32" if options.tf32 else b"exact")

    def compare(serialized):
        found.append(reference.compare(reference.run(engines[bytes(serialized)])))
        return found[-1]

    monkeypatch.setattr(provide, "build_engine", build)
    monkeypatch.setattr(provide, "count_attention", lambda flavour, path: 0)
    engine = provide.provide_engine(bundle, FLAVOUR, GPU, lambda: compare, silent)
    return bytes(engine.serialized), found


def test_the_shipped_bundle_drifts_too_far_with_tf32_and_is_built_without(shipped, tmp_path, monkeypatch):
    rounded = tmp_path / "tf32.kanoclip"
    shutil.copytree(shipped.root, rounded)
    in_tf32(shipped.model_path, rounded / "model.onnx")
    exact, tf32 = (
        OnnxRuntimeBackend(bundle, "cpu", tensorrt=False, threads=1)
        for bundle in (shipped, replace(shipped, root=rounded))
    )
    reference = Reference(shipped)
    drift = reference.compare(reference.run(tf32))
    assert not drift.agrees and drift.score_drift > drift.score_bound, drift.drifts()
    built, (found,) = provided(shipped, monkeypatch, {b"exact": exact, b"tf32": tf32})
    assert built == b"exact" and found.agrees


def test_where_no_attention_is_in_half_precision_nothing_is_left_to_try(make_toy_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bundle = Bundle.open(make_toy_bundle(tmp_path / "toy.kanoclip", samples=2))

    class Wrong(OnnxRuntimeBackend):
        def run(self, frames, class_index, memory=None):
            maps, scores = super().run(frames, class_index, memory)
            return maps + np.float32(0.1), scores

    wrong = Wrong(bundle, "cpu", tensorrt=False, threads=1)
    with pytest.raises(BackendError, match=r"wrong answers on this GPU .*another TensorRT or driver") as caught:
        provided(bundle, monkeypatch, {b"exact": wrong, b"tf32": wrong})
    assert "--fp32" not in str(caught.value), "it is in float32 already"


def test_half_precision_keeps_tf32_for_what_float32_is_left_in_it(make_toy_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bundle = Bundle.open(make_toy_bundle(tmp_path / "toy.kanoclip", samples=2))
    half = replace(bundle, manifest=replace(bundle.manifest, precision="fp16"))
    right = OnnxRuntimeBackend(bundle, "cpu", tensorrt=False, threads=1)
    assert provided(half, monkeypatch, {b"tf32": right})[0] == b"tf32"
