"""A second writer of one file of lines, video or folder of snapshots is refused, and the first loses nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest

from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.ops.score.run_folder import Identity, RunFolder
from kanoclip.runtime.sinks.images import ImageFolderSink
from kanoclip.runtime.sinks.jsonl import JsonLinesSink, Rotation
from kanoclip.runtime.sinks.video.video import VideoSink
from kanoclip.runtime.types import BadFrame

RUN = Path(sys.executable).with_name("kanoclip-run")


def lines(path):
    return len(Path(path).read_text().splitlines())


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return "two.jsonl"


@pytest.mark.parametrize("append", [False, True])
def test_the_second_is_refused_and_nothing_is_lost(place, append):
    first = JsonLinesSink(place)
    for n in range(3):
        first.skip(BadFrame(n, "a.png", "reason"))
    os.link(place, "hard.jsonl")
    Path("soft.jsonl").symlink_to(place)
    for name in (place, f"./{place}", "soft.jsonl", "hard.jsonl"):
        with pytest.raises(SinkError, match="another process is writing it"):
            JsonLinesSink(name, append=append)
    first.skip(BadFrame(3, "a.png", "reason"))
    first.close()
    assert lines(place) == 4
    JsonLinesSink(place, append=True).close()
    assert lines(place) == 4
    assert not list(Path().glob(".*"))


def test_the_lock_outlives_rotation_and_logrotate(place):
    first = JsonLinesSink(place, append=True, rotation=Rotation(200, 2))
    for n in range(9):
        first.skip(BadFrame(n, "a.png", "reason"))
        with pytest.raises(SinkError):
            JsonLinesSink(place)
    assert Path(f"{place}.1").exists()
    Path(place).rename("moved")  # nobody has the name now, and nobody may take it
    with pytest.raises(SinkError):
        JsonLinesSink(place)
    first.reopen()
    first.skip(BadFrame(9, "a.png", "reason"))
    with pytest.raises(SinkError):
        JsonLinesSink(place)
    first.close()
    assert lines(place) == 1


def test_one_that_could_not_be_opened_leaves_no_lock(place):
    Path(place).mkdir()
    with pytest.raises(SinkError, match="cannot be written"):
        JsonLinesSink(place)
    Path(place).rmdir()
    JsonLinesSink(place).close()


def test_pipes_and_devices_have_as_many_writers_as_they_like(place):
    for one in [JsonLinesSink("/dev/null"), JsonLinesSink("/dev/null")]:
        one.close()


def test_a_video_has_one_writer(tmp_path):
    path = tmp_path / "x.mp4"
    for live in (False, True):
        first = VideoSink(path, 10, live=live, untrained=False)
        with pytest.raises(SinkError, match="another process is writing it"):
            VideoSink(path, 10, live=live, untrained=False)
        first.close()
    VideoSink(path, 10, live=False, untrained=False).close()
    assert not list(tmp_path.iterdir())


def test_a_folder_of_annotated_images_has_one_writer(tmp_path):
    first = ImageFolderSink(tmp_path / "out", None, untrained=False)
    with pytest.raises(SinkError, match="another process writes images there; give each a folder of its own"):
        ImageFolderSink(tmp_path / "out", tmp_path, untrained=False)
    first.close()
    ImageFolderSink(tmp_path / "out", None, untrained=False).close()


def test_a_folder_of_maps_belongs_to_one_table(tmp_path):
    identity = Identity(*(None,) * len(fields(Identity)))
    runs = [RunFolder(tmp_path / name) for name in ("a.parquet", "b.parquet")]
    for run in runs:
        run.root.mkdir()
    runs[0].begin(identity, tmp_path / "maps")
    runs[0].begin(identity, tmp_path / "maps")
    with pytest.raises(SinkError, match=r"holds the maps of .*a\.parquet: choose another --maps"):
        runs[1].begin(identity, tmp_path / "maps")
    runs[0].remove()
    (tmp_path / "a.parquet").touch()
    with pytest.raises(SinkError, match="holds the maps"):
        runs[1].begin(identity, tmp_path / "maps")
    (tmp_path / "a.parquet").unlink()  # and with it the maps' meaning
    runs[1].begin(identity, tmp_path / "maps")


def test_two_runs(place, toy_bundle):
    """As two people start them: the first waits in a watched folder while the second is refused."""
    Path("in").mkdir()
    for n in range(4):
        cv2.imwrite(f"in/{n}.png", np.full((40, 40, 3), 60 * n, np.uint8))
    line = [RUN, "--bundle", toy_bundle, "--jsonl", place, "--quiet", "--no-window"]
    first = subprocess.Popen([*line, "--source", "watch://in?existing=1"], stderr=subprocess.PIPE, text=True)
    try:
        while not Path(place).exists() or lines(place) < 4:
            assert first.poll() is None
        second = subprocess.run([*line, "--source", "in"], capture_output=True, text=True)
        assert second.returncode == 1
        assert second.stderr == f"error: {place}: another process is writing it; give each a file of its own\n"
        assert lines(place) == 4
    finally:
        first.terminate()
        first.communicate()
    assert first.returncode == 0
    assert subprocess.run([*line, "--source", "in"]).returncode == 0
    assert lines(place) == 4
