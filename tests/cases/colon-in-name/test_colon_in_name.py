"""A colon in a file's name is no scheme: `10:15.mp4` is what a camera calls a recording of a quarter past ten."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from kanoclip.runtime.cli.main import invoke
from kanoclip.runtime.sinks.video.encoders import OpenCvEncoder
from kanoclip.runtime.sources import open_source

CLIP = Path(__file__).parents[1] / "overwrite-source-video" / "clip.mp4"


@pytest.mark.parametrize("name", ["10:15.mp4", "file:x.mp4", "a:b:c.mp4", "http:x.mp4"])
def test_a_video(name, tmp_path, monkeypatch, toy_bundle):
    monkeypatch.chdir(tmp_path)
    shutil.copy(CLIP, name)
    source = open_source(name)
    assert source.name == name
    assert len(list(source.frames())) > 0
    source.close()
    line = ["--bundle", str(toy_bundle), "--source", name, "--output", f"out-{name}", "--jsonl", "x", "--quiet"]
    assert invoke("kanoclip-run", "run", line) == 0
    assert Path(f"out-{name}").stat().st_size > 0


def test_an_encoder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encoder = OpenCvEncoder(Path("10:15.mp4"), (16, 16), 5)
    encoder.write(np.zeros((16, 16, 3), np.uint8))
    encoder.close()
    assert Path("10:15.mp4").is_file()
