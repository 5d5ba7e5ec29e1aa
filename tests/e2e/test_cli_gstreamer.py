"""`kanoclip-run` on GStreamer pipelines: the installed command with the shipped bundle, in a process of its own."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .helpers import environment, in_process

FAKE = runpy.run_path(str(Path(__file__).parents[1] / "support" / "fake_gst_launch.py"))
RUN = (str(Path(sys.executable).parent / "kanoclip-run"), "--backend", "onnxruntime")  # `auto` may tell of a trial
pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def fake(tmp_path):
    """The environment of a machine whose gst-launch-1.0 is the stand-in."""
    folder = FAKE["install"](tmp_path / "bin")
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return lambda mode: environment(PATH=path, FAKE_GST=mode, FAKE_GST_LOG=str(tmp_path / "log"))


def run(arguments, cwd, env):
    return subprocess.run([*RUN, *arguments], capture_output=True, text=True, env=env, cwd=cwd, timeout=120)


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_pipeline_is_scored_to_its_end(fake, tmp_path):
    done = run(["--source", "gst://videotestsrc num-buffers=5", "--jsonl", "x.jsonl"], tmp_path, fake("file"))
    assert (done.returncode, done.stderr) == (0, "")
    found = rows(tmp_path / "x.jsonl")
    assert [row["frame"] for row in found] == list(range(5))  # of files: nothing is dropped
    assert {row["source"] for row in found} == {"gst://videotestsrc num-buffers=5"}
    assert all(0 <= row["score"] <= 1 for row in found)


def test_a_failing_camera_is_one_line_after_its_frames(fake, tmp_path):
    arguments = ["--camera", "csi://0?fps=60", "--no-reconnect", "--jsonl", "x.jsonl", "--threshold", "0"]
    done = run(arguments, tmp_path, fake("dies"))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: csi://0?fps=60: stopped after 5 frames (exit code 1): ERROR: from element")
    # Nobody looks at whole frames: halved ones come, and regions are in the pixels of the whole ones.
    assert "nvvidconv flip-method=0 interpolation-method=1 ! video/x-raw,format=BGRx,width=960,height=540" in " ".join(
        (tmp_path / "log").read_text().splitlines()
    )
    assert all(one["width"] > 6 for row in rows(tmp_path / "x.jsonl") for one in row["regions"])
    assert any(row["regions"] for row in rows(tmp_path / "x.jsonl"))


def test_sigterm_ends_the_run_and_the_pipeline(fake, tmp_path):
    command = [*RUN, "--camera", "csi://0", "--jsonl", "x.jsonl"]
    process = subprocess.Popen(
        command, env=fake("endless"), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    target = tmp_path / "x.jsonl"
    for _ in range(1000):
        if target.exists() and target.read_text().count("\n") >= 3:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    child = (tmp_path / "log").read_text().splitlines()[0]
    assert not Path(f"/proc/{child}").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (
            ["--camera", "csi://0?width=big"],
            2,
            ["--camera", "width must be a whole number from 16 to 16384, not 'big'"],
        ),
        (["--camera", "gst://videotestsrc"], 2, ["--camera", "csi://N"]),
        (["--camera", "/dev/null"], 1, ["/dev/null: not a camera"]),
        (["--source", "gst://"], 1, ["gst://: no pipeline given"]),
    ],
)
def test_wrong_usage(fake, tmp_path, arguments, code, parts):
    done = in_process("kanoclip-run", *RUN[1:], *arguments, cwd=tmp_path, env=fake("normal"))
    assert done.returncode == code
    (line,) = done.stderr.splitlines()
    for part in parts:
        assert part in line


def test_without_the_tool_it_says_what_to_install(tmp_path):
    done = run(["--camera", "csi://0"], tmp_path, environment(PATH=str(tmp_path)))
    assert done.returncode == 1
    assert done.stderr.startswith("error: csi://0: gst-launch-1.0 is not installed: apt-get install gstreamer1.0-tools")


@pytest.mark.skipif(shutil.which("gst-launch-1.0") is None, reason="gst-launch-1.0 is not installed")
def test_the_real_tool(tmp_path):
    spec = "gst://videotestsrc num-buffers=20"
    done = run(["--source", spec, "--output", "out", "--jsonl", "x.jsonl"], tmp_path, environment())
    assert (done.returncode, done.stderr) == (0, "")
    assert "20 frames in" in done.stdout
    assert [row["frame"] for row in rows(tmp_path / "x.jsonl")] == list(range(20))
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 20
