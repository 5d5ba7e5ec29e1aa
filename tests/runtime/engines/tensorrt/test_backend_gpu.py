"""On a real GPU, with each TensorRT that is installed: `pytest -m gpu`."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.engines.doctor import compare
from kanoclip.runtime.engines.tensorrt.open_device import open_device

pytestmark = pytest.mark.gpu
IMAGES = sorted((Path(__file__).parents[4] / "examples" / "hazelnut_toy").rglob("*.jpg"))[:4]


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def flavour(request, tmp_path, monkeypatch):
    if importlib.util.find_spec(request.param.replace("-", "_")) is None:
        pytest.skip(f"{request.param} is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return request.param


def export(folder, *arguments):
    command = [sys.executable, "-m", "kanoclip.runtime.cli.main", "export", "--output", str(folder / "b.kanoclip")]
    done = subprocess.run([*command, *arguments, "--json"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder / "b.kanoclip", json.loads(done.stdout)


@pytest.mark.parametrize("precision", ["--fp16", "--fp32"])
@pytest.mark.parametrize("batch", [[], ["--dynamic-batch", "4"]])
def test_an_engine_built_here_agrees_and_is_kept(tmp_path, flavour, precision, batch):
    path, manifest = export(tmp_path, precision, *batch)
    first = compare(Bundle.open(path), flavour)
    assert first.agrees and first.engine.startswith("built now")
    if precision == "--fp16":
        assert first.fused_attention == manifest["parity"]["attention_blocks"]
    second = compare(Bundle.open(path), flavour)
    assert second.agrees and second.engine.startswith("built here before")
    if not batch:
        return
    frames = [cv2.imread(str(image)) for image in IMAGES]
    with (
        Detector.load(path, backend=flavour) as fast,
        Detector.load(path, backend="onnxruntime", device="cpu") as plain,
    ):
        theirs = plain.batch(frames)
        for count in (1, 3, 3, 1, 4, 2, 4, 3):
            for mine, other in zip(fast.batch(frames[:count]), theirs, strict=False):
                np.testing.assert_allclose(mine.map, other.map, atol=2e-2)
        assert sorted(fast.backend.recorded) == ([1, 2, 3, 4] if flavour == "tensorrt" else [])


@pytest.mark.parametrize("options", [[], ["--strip-weights"], ["--compatibility", "ampere-plus"]], ids=str)
def test_an_engine_that_travels_with_the_bundle(tmp_path, flavour, options):
    if flavour == "tensorrt-rtx":
        if options:
            pytest.skip("full TensorRT only")
        gpu = open_device(0)
        options = ["--compute-capability", gpu.info.compute_capability]
        gpu.close()
    path, manifest = export(tmp_path, "--fp16", "--engine", flavour, *options)
    found = compare(Bundle.open(path), flavour)
    assert found.agrees and found.engine == f"the bundle's {manifest['engines'][0]['file']}"
    assert compare(Bundle.open(path)).backend == f"{flavour}-cuda", "auto takes an engine that fits"


def test_frames_in_a_row_are_those_of_the_cpu(tmp_path, flavour):
    path, _ = export(tmp_path, "--fp16")
    frames = [cv2.imread(str(image)) for image in IMAGES]
    with (
        Detector.load(path, backend=flavour) as fast,
        Detector.load(path, backend="onnxruntime", device="cpu") as plain,
    ):
        theirs = plain.batch(frames)
        for frame, other in zip(frames * 3, theirs * 3, strict=True):
            mine = fast(frame)
            assert mine.score == pytest.approx(other.score, abs=1e-2)
            np.testing.assert_allclose(mine.map, other.map, atol=2e-2)
        assert fast.in_flight == 2
        flying = [fast.submit([fast.prepare(frames[0])])]
        for number in range(1, 16):
            flying.append(fast.submit([fast.prepare(frames[number % 4])]))
            np.testing.assert_allclose(flying.pop(0)()[0].map, theirs[(number - 1) % 4].map, atol=2e-2)
