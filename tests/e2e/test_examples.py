"""The scripts in examples/, as a user runs them, on the example images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from broker import free_port

pytestmark = pytest.mark.timeout(300)
EXAMPLES = Path(__file__).parents[2] / "examples"
IMAGES = EXAMPLES / "hazelnut_toy" / "test"
BAD_ONE, GOOD_ONE = sorted((IMAGES / "colour").glob("*.jpg"))[0], sorted((IMAGES / "good").glob("*.jpg"))[0]


def run(script, *arguments):
    """Standard output's lines."""
    command = [sys.executable, EXAMPLES / script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_one_image():
    first, *regions = run("one_image.py", BAD_ONE)
    assert first.split()[0] in {"anomalous", "normal"} and 0 <= float(first.split()[1]) <= 1
    assert (first.split()[0] == "normal") or (all(" at (" in line for line in regions) and regions)


def test_a_folder(tmp_path):
    lines = run("folder.py", IMAGES / "good", tmp_path)
    images = len(list((IMAGES / "good").glob("*.jpg")))
    records = [json.loads(line) for line in (tmp_path / "frames.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == images + 1 and len(records) == images
    assert len(list(tmp_path.glob("*.jpg"))) == images
    anomalous = sum(record["is_anomalous"] for record in records)
    assert lines[-1] == f"{anomalous} of {images} images are anomalous"


def test_two_runs_side_by_side(tmp_path):
    """Before and after are the same here: the table and the image are what is tested."""
    for name in ("before", "after"):
        (tmp_path / name / "colour").mkdir(parents=True)
        frame = {"source": str(BAD_ONE), "score": 0.7, "threshold": 0.6, "is_anomalous": name == "after"}
        (tmp_path / name / "frames.jsonl").write_text(json.dumps(frame) + "\n", encoding="utf-8")
        (tmp_path / name / "colour" / BAD_ONE.name).write_bytes(BAD_ONE.read_bytes())
    target = tmp_path / "o.jpg"
    head, row, last = run("overview.py", IMAGES, tmp_path / "before", tmp_path / "after", "--output", target)
    assert head.split() == ["folder", "images", "anomalous", "before", "after"]
    assert row.split() == ["colour", "1", "0", "1"] and last.endswith("o.jpg")
    assert target.stat().st_size > 10_000


def test_a_camera():
    *frames, last = run("camera.py", "test://?width=320&height=240&fps=50&defect=0.5", 5)
    assert len(frames) <= 5 and all(line.startswith("frame ") for line in frames) and frames
    assert last.startswith("5 frames, ")


def test_an_own_sink(tmp_path):
    for name in (BAD_ONE, GOOD_ONE):
        (tmp_path / name.name).write_bytes(name.read_bytes())
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    (last,) = run("own_sink.py", tmp_path)
    counts = [int(word) for word in last.split() if word.isdecimal()]
    assert sum(counts) == 3 and counts[2] == 1


def test_an_endpoint():
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    port = free_port()
    server = subprocess.Popen([sys.executable, EXAMPLES / "endpoint.py", str(port)], env=os.environ)
    try:
        found = answer(port, GOOD_ONE.read_bytes(), server)
        assert 0 <= found["score"] <= 1 and found["is_anomalous"] in (True, False)
        assert isinstance(found["regions"], list)
        with pytest.raises(urllib.error.HTTPError, match="400"):
            answer(port, b"no image", server)
    finally:
        server.terminate()
        server.wait(30)


def answer(port, body, server):
    """Posts a body, once the server is there."""
    deadline = time.monotonic() + 120
    while True:
        try:
            request = urllib.request.Request(f"http://127.0.0.1:{port}/score", body)
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)
        except urllib.error.HTTPError:
            raise
        except OSError:
            assert server.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
