from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from kanoclip.benchmarks.studies.streams.first_look import HEIGHT, WIDTH, first_verdict, write_video
from kanoclip.runtime.errors import KanoclipError


def test_the_video_is_720p_and_no_frame_is_the_one_before(tmp_path):
    write_video(tmp_path / "camera.mp4", 5)
    capture = cv2.VideoCapture(str(tmp_path / "camera.mp4"))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    assert [frame.shape for frame in frames] == [(HEIGHT, WIDTH, 3)] * 5
    for one, other in itertools.pairwise(frames):
        assert np.abs(one.astype(int) - other).mean() > 0.5


@pytest.mark.nightly
def test_it_measures_the_shipped_bundle_and_writes_its_figures(tmp_path):
    output = tmp_path / "result.json"
    command = [sys.executable, "-m", "kanoclip.benchmarks.studies.streams.first_look", "--frames", "12"]
    command += ["--repeat", "1", "--backend", "onnxruntime", "--backend", "openvino"]
    done = subprocess.run([*command, "--output", str(output)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    runs = json.loads(output.read_text())["runs"]
    assert [found["backend"] for found in runs] == ["onnxruntime", "openvino"]
    assert runs[0]["fps_ratio"] == 1
    assert runs[1]["fps_ratio"] == pytest.approx(runs[1]["fps"]["median"] / runs[0]["fps"]["median"])
    for found in runs:
        assert found["bundle"] == "nano.kanoclip"
        assert found["frames"] == 12 and 0.1 < found["fps"]["worst"] <= found["fps"]["median"] <= found["fps"]["best"]
        for start in ("first_start_s", "first_verdict_s"):
            assert 0.05 < found[start]["median"] <= found[start]["worst"]
        assert 20 < found["peak_memory_mb"] < 350, "a box with little memory runs the default"


def test_a_run_without_a_verdict_is_no_figure(tmp_path):
    with pytest.raises(KanoclipError, match="said nothing"):
        first_verdict(tmp_path / "none.kanoclip", Path("none.jpg"), "auto", tmp_path / "cache")
