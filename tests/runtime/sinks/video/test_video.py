"""Video that survives kills and full disks, in files that take a bounded part of the disk, by every encoder here."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from broker import wait_until
from disks import fill, small_disk
from sink_driver import DrivenSink
from sink_helpers import ANOMALY, make_frame

from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.sinks.video import encoders, video
from kanoclip.runtime.sinks.video.segments import Segments, delete_oldest, stamped
from kanoclip.runtime.sinks.video.video import VideoSink

pytestmark = pytest.mark.timeout(120)


def read(path):
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        ok, image = capture.read()
        if not ok:
            return frames
        frames.append(image)


def codec(path):
    return int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode()


@pytest.fixture
def opencv_only(monkeypatch):
    for module in (encoders, video):
        monkeypatch.setattr(module, "h264_recipe", lambda: None)


@pytest.mark.parametrize("recipe", encoders.RECIPES, ids=lambda recipe: recipe.name)
def test_every_encoder_that_works_here_keeps_every_frame(recipe, tmp_path):
    if not encoders._works(recipe):
        if "libx264" in recipe.name and os.environ.get("KANOCLIP_REQUIRE_SERVICES") == "1":
            pytest.fail("tests/apt-packages.txt installs ffmpeg")
        pytest.skip(f"{recipe.name} is not here")
    path = tmp_path / 'it\'s 100 % "odd" !.mp4'
    encoder = encoders.PipeEncoder(recipe, path, (240, 320), 12.5)
    for level in range(0, 250, 10):
        encoder.write(np.full((240, 320, 3), level, np.uint8))
    encoder.close()
    frames = read(path)
    assert len(frames) == 25 and codec(path) in {"avc1", "h264"}
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS) == pytest.approx(12.5, rel=0.01)
    assert all(abs(frame.mean() - 10 * index) < 6 for index, frame in enumerate(frames))


@pytest.mark.parametrize("missing", ["h264parse", "mp4mux", "x264enc"])
def test_an_encoder_without_its_parser_or_muxer_does_not_work(tmp_path, monkeypatch, missing):
    """They are in other packages than the encoder: a video would have been lost, and not become MPEG-4."""
    launcher = tmp_path / "gst-launch-1.0"
    launcher.write_text(f'#!/bin/sh\ncase "$*" in *{missing}*) exit 1;; esac\n')
    launcher.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    (recipe,) = [one for one in encoders.RECIPES if one.name == "GStreamer's x264enc"]
    assert not encoders._works(recipe)
    launcher.write_text("#!/bin/sh\n")
    assert encoders._works(recipe)


def test_without_an_encoder_for_h264_it_is_mpeg_4_and_said(opencv_only, tmp_path, caplog):
    sink = VideoSink(tmp_path / "x.mp4", 25, live=False, untrained=False)
    for index in range(5):
        sink.write(make_frame(index), ANOMALY)
    sink.close()
    assert len(read(tmp_path / "x.mp4")) == 5 and codec(tmp_path / "x.mp4") == "FMP4"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and "apt-get install ffmpeg" in record.getMessage()


def test_opencv_s_damaged_file_is_an_error_and_goes(opencv_only, tmp_path):
    sink = VideoSink(tmp_path / "x.mp4", 25, live=False, untrained=False)
    sink.write(make_frame(), ANOMALY)
    (partial,) = tmp_path.glob("*.mp4")
    partial.unlink()
    partial.write_bytes(b"")  # what a full disk leaves
    with pytest.raises(SinkError, match="the video could not be completed"):
        sink.close()
    assert list(tmp_path.iterdir()) == []


WRITES = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from sink_helpers import ANOMALY, make_frame
from kanoclip.runtime.sinks.video.video import VideoSink
sink = VideoSink(Path(sys.argv[1]), 20, live=True, untrained=False)
for index in range(100000):
    sink.write(make_frame(index, at=1e9 + index / 20, size=(240, 320), level=index % 200), ANOMALY)
    print(index, sink._encoder._process.pid, flush=True)
    time.sleep(0.01)
"""


@pytest.mark.programs("ffmpeg")
@pytest.mark.parametrize("everything", [False, True], ids=["the process", "the encoder with it"])
def test_a_recording_that_is_cut_is_readable_up_to_the_cut(tmp_path, everything):
    path = tmp_path / "x.mp4"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITES, path, Path(__file__).parents[3] / "support"], stdout=subprocess.PIPE, text=True
    )
    try:
        for line in process.stdout:
            index, encoder = map(int, line.split())
            if index == 150:
                break
        assert path.exists(), "it has its name from the start"
        if everything:
            os.kill(encoder, signal.SIGKILL)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    if not everything:  # it finishes what it got
        wait_until(lambda: not Path(f"/proc/{encoder}").exists() or "Z" in Path(f"/proc/{encoder}/stat").read_text())
    frames = len(read(path))
    assert frames >= (150 if not everything else 150 - 2 * 20 - 5), frames


@pytest.mark.programs("ffmpeg")
def test_a_recording_never_overwrites_the_one_before(tmp_path):
    path = tmp_path / "x.mp4"
    for count in (3, 4, 5):
        sink = VideoSink(path, 10, live=True, untrained=False)
        for index in range(count):
            sink.write(make_frame(index, at=1000 + index / 10), ANOMALY)
        sink.close()
    names = sorted(p.name for p in tmp_path.iterdir())
    assert len(names) == 3 and "x.mp4" in names
    assert sorted(len(read(tmp_path / name)) for name in names) == [3, 4, 5] and len(read(path)) == 5
    assert all(re.fullmatch(r"x(-\d{8}T\d{6}Z(-\d+)?)?\.mp4", name) for name in names)


@pytest.mark.programs("ffmpeg")
def test_a_recording_is_split_and_bounded(tmp_path):
    path = tmp_path / "x.mp4"
    (tmp_path / "x-holiday.mp4").write_bytes(b"mine" * 100_000)
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)

    def record_from(second, bound):
        sink = VideoSink(path, 5, live=True, untrained=False, segments=Segments(1.0, bound))
        for index in range(15):
            frame = make_frame(index, at=1_700_000_000 + second + index / 5, size=(120, 160))
            frame.image[...] = np.roll(noise, 7 * index, 1)
            sink.write(frame, ANOMALY)
        sink.close()

    record_from(0, None)
    pieces = sorted(tmp_path.glob("x-2*.mp4"))
    assert [p.name for p in pieces] == [f"x-20231114T2213{second}Z.mp4" for second in (20, 21, 22)]
    assert [len(read(p)) for p in pieces] == [5] * 3 and not path.exists()
    size = max(p.stat().st_size for p in pieces)
    record_from(3, 2 * size + size // 2)
    left = sorted(tmp_path.glob("x-2*.mp4"))
    assert [p.name for p in left] == [f"x-20231114T2213{second}Z.mp4" for second in (23, 24, 25)], "two and the newest"
    assert (tmp_path / "x-holiday.mp4").exists()


def test_names_of_pieces_do_not_collide_and_go_in_order(tmp_path):
    path = tmp_path / "x.mp4"
    names = []
    for _ in range(12):
        names.append(stamped(path, 1_700_000_000))
        names[-1].write_bytes(b"0123456789")
    delete_oldest(path, 35)
    assert sorted(tmp_path.iterdir()) == sorted(names[-3:])


@pytest.mark.programs("ffmpeg")
def test_a_full_disk_is_told_by_name_and_the_recording_goes_on_when_there_is_room(tmp_path):
    said = []
    rng = np.random.default_rng(0)
    with small_disk(tmp_path, 4 << 20):
        fill(blob := tmp_path / "somebody else's")
        os.truncate(blob, (3 << 20) + (1 << 19))

        def open_sink():
            return VideoSink(tmp_path / "x.mp4", 10, live=True, untrained=False)

        sink = DrivenSink(open_sink, "video", shows=True, notify=said.append, first_retry_s=0.05, settle_s=0)
        index = 0

        def write_one():
            nonlocal index
            frame = make_frame(index, at=1e9 + index / 10, size=(480, 640))
            frame.image[...] = rng.integers(0, 256, frame.image.shape, dtype=np.uint8)
            sink.write(frame, ANOMALY)
            index += 1

        wait_until(lambda: write_one() or sink.outage is not None, 30)
        assert len(said) == 1 and "x.mp4" in said[0] and "No space left on device" in said[0]
        blob.unlink()
        wait_until(lambda: write_one() or sink.outage is None, 30)
        for _ in range(5):
            write_one()
        sink.close()
        assert len(said) == 2
        assert len(read(tmp_path / "x.mp4")) >= 5
