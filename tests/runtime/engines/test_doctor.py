from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from kanoclip.runtime.bundle.bundle import Bundle, shipped_bundle
from kanoclip.runtime.engines import doctor
from kanoclip.runtime.engines.doctor import compare, examine_machine
from kanoclip.runtime.engines.onnxruntime.backend import OnnxRuntimeBackend
from kanoclip.runtime.engines.openvino import OpenVinoBackend
from kanoclip.runtime.errors import BackendError, BundleError


class Wrong:
    """An engine that answers like another one, but not quite."""

    name = "wrong"

    def __init__(self, right, change):
        self.right, self.change = right, change

    def run(self, frames, class_index, memory=None):
        return self.change(*self.right.run(frames, class_index, memory))

    def close(self):
        self.right.close()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"classes": ("bolt", "nut")},
        {"classes": ("bolt", "nut", "cog", "pin"), "samples": 2},
        {"max_batch": 4},
        {"max_batch": 4, "dynamic": True},
    ],
)
def test_an_engine_agrees_with_itself(tmp_path, make_toy_bundle, options):
    bundle = Bundle.open(make_toy_bundle(tmp_path / "toy.kanoclip", **{"samples": 3, **options}))
    found = compare(bundle, "onnxruntime", "cpu", 1)
    assert found.agrees and found.backend == "onnxruntime-cpu"
    assert found.compared == options.get("samples", 3)
    assert found.map_drift <= 1e-6 and found.milliseconds > 0


@pytest.mark.parametrize(
    ("change", "agrees"),
    [
        (lambda maps, scores: (maps + 9e-4, scores), True),
        (lambda maps, scores: (maps + 2e-3, scores), False),
        (lambda maps, scores: (maps, scores - 2e-4), False),
        (lambda maps, scores: (np.where(maps == maps.max(), np.nan, maps), scores), False),
        (lambda maps, scores: (maps, scores * np.nan), False),
        (lambda maps, scores: (maps[..., ::-1], scores), False),
    ],
)
def test_an_engine_that_drifts_does_not_agree(tmp_path, make_toy_bundle, monkeypatch, change, agrees):
    bundle = Bundle.open(make_toy_bundle(tmp_path / "toy.kanoclip", samples=2))
    real = doctor.create_backend
    monkeypatch.setattr(doctor, "create_backend", lambda *given: Wrong(real(*given), change))
    assert compare(bundle, device="cpu").agrees is agrees


def test_every_class_is_compared(tmp_path, make_toy_bundle, monkeypatch):
    bundle = Bundle.open(make_toy_bundle(tmp_path / "toy.kanoclip", classes=("bolt", "nut", "cog"), samples=1))
    used = []
    real = doctor.create_backend

    def watch(*given):
        backend = real(*given)
        return Wrong(Watching(backend, used), lambda maps, scores: (maps, scores))

    monkeypatch.setattr(doctor, "create_backend", watch)
    compare(bundle, device="cpu")
    assert set(used) == {0, 1, 2}


class Watching:
    def __init__(self, right, used):
        self.right, self.used, self.close = right, used, right.close

    def run(self, frames, class_index, memory=None):
        self.used += class_index.tolist()
        return self.right.run(frames, class_index, memory)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_graph_that_is_cut_is_compared_too(engine, monkeypatch):
    """References alone run on another graph of a CPU's engine, and the whole one is what it must agree with."""
    bundle = Bundle.open(shipped_bundle())
    assert compare(bundle, engine, "cpu", 1).agrees
    kind = {"onnxruntime": OnnxRuntimeBackend, "openvino": OpenVinoBackend}[engine]
    right = kind._distances

    def wrong(self, inputs):
        found = right(self, inputs)
        return None if found is None else found + np.float32(0.01)

    monkeypatch.setattr(kind, "_distances", wrong)
    assert not compare(bundle, engine, "cpu", 1).agrees


def test_bundles_that_cannot_be_scored(tmp_path, make_toy_bundle):
    bare = Bundle.open(make_toy_bundle(tmp_path / "bare.kanoclip", parity={"bounds": {"map": 1.0, "score": 1.0}}))
    with pytest.raises(BundleError, match="no images of its own: export it again"):
        compare(bare, device="cpu")
    unmeasured = Bundle.open(make_toy_bundle(tmp_path / "u.kanoclip", samples=1, parity=None))
    with pytest.raises(BundleError, match="without a parity report"):
        compare(unmeasured, device="cpu")
    bf16 = Bundle.open(make_toy_bundle(tmp_path / "b.kanoclip", samples=1, bf16=True))
    with pytest.raises(BackendError, match="which no CPU provider runs"):
        compare(bf16, device="cpu")


def test_an_image_of_another_size_is_refused(tmp_path, make_toy_bundle):
    folder = make_toy_bundle(tmp_path / "toy.kanoclip", samples=1)
    bundle = Bundle.open(folder)
    for content in (cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes(), b"no image"):
        (folder / "samples" / "0.jpg").write_bytes(content)
        with pytest.raises(BundleError, match=r"samples/0\.jpg is no image of the graph's size"):
            bundle.samples()


@pytest.mark.parametrize(
    ("packages", "problem"),
    [
        ({"onnxruntime": "1", "onnxruntime-gpu": "1"}, "overwrite each other"),
        ({"numpy": "2"}, "no ONNX Runtime"),
        ({"onnxruntime": "1"}, "the GPU lies idle"),
    ],
)
def test_problems_of_a_machine_are_said_with_their_remedy(tmp_path, monkeypatch, packages, problem):
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'Some GPU, 8.9, 580.1, 24576 MiB'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(doctor, "installed_versions", lambda names: packages)
    machine = examine_machine()
    assert machine.gpus == ("Some GPU, 8.9, 580.1, 24576 MiB",)
    (said,) = machine.problems
    assert problem in said and "install" in said


def test_a_machine_without_gpu_or_with_a_broken_driver(tmp_path, monkeypatch):
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    driver.chmod(0o755)
    for path in (str(tmp_path), str(tmp_path / "empty")):
        monkeypatch.setenv("PATH", path)
        machine = examine_machine()
        assert machine.gpus == () and machine.cores >= 1 and "numpy" in machine.packages


def test_jetson_is_told_by_its_release_file(tmp_path, monkeypatch):
    release = tmp_path / "nv_tegra_release"
    release.write_text("# R36 (release), REVISION: 4.3, BOARD: generic\nmore\n")
    monkeypatch.setattr(doctor, "_TEGRA", release)
    assert examine_machine().jetson == "R36 (release), REVISION: 4.3, BOARD: generic"
    monkeypatch.setattr(doctor, "_TEGRA", Path("/does/not/exist"))
    assert examine_machine().jetson is None
