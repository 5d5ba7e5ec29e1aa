"""Sinks against real files, full disks and folders without permission."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.sinks import ImageFolderSink, JsonLinesSink, VideoSink, WindowSink, has_display
from kanoclip.runtime.sinks.images import LOCK
from kanoclip.runtime.sinks.video.video import fit
from kanoclip.runtime.system.files.own import MARK
from kanoclip.runtime.types import BadFrame, Detection, Frame, Region, Timings

DETECTION = Detection(
    0.75,
    np.zeros((8, 8), np.float32),
    True,
    0.5,
    (Region(10, 20, 30, 40, 0.9, 600), Region(1, 2, 3, 4, 0.6, 12)),
    "nut",
    Timings(1.0, 2.0, 3.0, 0.5, 0.5),
)
FULL = Path("/dev/full")


def frame(source="camera 0", index=0, size=(240, 320), at=1_700_000_000.25, level=90):
    return Frame(index, str(source), at, np.full((*size, 3), level, np.uint8), 4.0)


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name not in (MARK, LOCK))


def test_images_mirror_the_source_s_tree_and_overwrite(tmp_path):
    root, out = tmp_path / "in", tmp_path / "deep" / "out"
    root.mkdir()
    for _ in range(2):
        sink = ImageFolderSink(out, root, untrained=False)
        for index, name in enumerate(["a/1.jpg", "a/1.png", "b/1.jpeg", "b/2.bmp"]):
            sink.write(frame(root / name, index), DETECTION)
        sink.close()
    assert files(out) == ["a/1.jpg", "a/1.png", "b/1.jpeg", "b/2.bmp.jpg"]
    image = cv2.imread(str(out / "a" / "1.png"))
    assert image.shape[1] == 320 and image.shape[0] > 240
    assert abs(int(image[-1, -1, 0]) - 90) <= 1


def test_images_never_collide_within_a_run(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    sink = ImageFolderSink(tmp_path / "out", root, untrained=False)
    for index, name in enumerate(["x.bmp", "x.bmp.jpg", "x.png"]):
        sink.write(frame(root / name, index), DETECTION)
    assert files(tmp_path / "out") == ["x.bmp.jpg", "x.bmp_1.jpg", "x.png"]


def test_frames_of_a_stream_are_numbered(tmp_path):
    sink = ImageFolderSink(tmp_path, None, untrained=False)
    sink.write(frame(index=7), DETECTION)
    assert files(tmp_path) == ["frame_00000007.jpg"]


def test_the_source_s_own_images_are_never_overwritten(tmp_path):
    with pytest.raises(SinkError, match="would be overwritten"):
        ImageFolderSink(tmp_path, tmp_path, untrained=False)


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(SinkError, match=r"out: cannot be written \(File exists\)"):
        ImageFolderSink(tmp_path / "out", None, untrained=False)
    with pytest.raises(SinkError, match=r"x\.mp4: cannot be written"):
        VideoSink(tmp_path / "out" / "x.mp4", 25, live=False, untrained=False)
    with pytest.raises(SinkError, match=r"x\.jsonl: cannot be written"):
        JsonLinesSink(str(tmp_path / "out" / "x.jsonl"))


def test_an_image_that_cannot_be_renamed_leaves_nothing_behind(tmp_path):
    (tmp_path / "frame_00000000.jpg").mkdir()
    sink = ImageFolderSink(tmp_path, None, untrained=False)
    with pytest.raises(SinkError, match=r"frame_00000000\.jpg: cannot be written"):
        sink.write(frame(), DETECTION)
    assert files(tmp_path) == []


def test_an_image_too_large_for_jpeg(tmp_path):
    sink = ImageFolderSink(tmp_path, None, untrained=False)
    with pytest.raises(SinkError, match="cannot be encoded at 200x7"):
        sink.write(frame(size=(70_000, 200)), DETECTION)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(SinkError, match="Permission denied"):
        VideoSink(tmp_path / "x.mp4", 25, live=False, untrained=False)


def test_json_lines_hold_every_field(tmp_path):
    path = tmp_path / "new" / "frames.jsonl"
    sink = JsonLinesSink(str(path))
    sink.write(frame("dir/ä.png", 3), DETECTION)
    sink.skip(BadFrame(4, "dir/5.png", "the file is empty"))
    lines = path.read_text("ascii").splitlines()  # before close: each line is flushed
    sink.close()
    assert json.loads(lines[0]) == {
        "frame": 3,
        "time": "2023-11-14T22:13:20.250+00:00",
        "source": "dir/ä.png",
        "class": "nut",
        "score": 0.75,
        "threshold": 0.5,
        "is_anomalous": True,
        "alarm": None,
        "regions": [
            {"x": 10, "y": 20, "width": 30, "height": 40, "score": 0.9, "area": 600},
            {"x": 1, "y": 2, "width": 3, "height": 4, "score": 0.6, "area": 12},
        ],
        "timings_ms": {"capture": 4.0, "resize": 1.0, "inference": 2.0, "decide": 3.0},
    }
    assert json.loads(lines[1]) == {"frame": 4, "source": "dir/5.png", "error": "the file is empty"}
    assert len(lines) == 2


def refuse(constant):
    raise AssertionError(constant)


def test_json_is_valid_even_for_values_that_json_lacks(tmp_path):
    path = tmp_path / "x.jsonl"
    sink = JsonLinesSink(str(path))
    odd = replace(DETECTION, score=np.float32("nan"), is_anomalous=np.bool_(False), threshold=float("inf"))
    sink.write(frame("dir/\udcff\n.png"), odd)
    sink.close()
    (line,) = path.read_bytes().splitlines()
    values = json.loads(line, parse_constant=refuse)
    assert (values["score"], values["threshold"], values["is_anomalous"]) == (None, None, False)
    assert values["source"] == "dir/\udcff\n.png"


def test_json_lines_go_to_standard_output(capsys):
    sink = JsonLinesSink("-")
    sink.write(frame(), DETECTION)
    sink.close()
    assert json.loads(capsys.readouterr().out)["source"] == "camera 0"
    print("still open")
    assert capsys.readouterr().out == "still open\n"


@pytest.mark.skipif(not FULL.exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_names_the_file(tmp_path):
    link = tmp_path / "full.jsonl"
    link.symlink_to(FULL)
    sink = JsonLinesSink(str(link))
    with pytest.raises(SinkError, match=r"full\.jsonl: cannot be written \(No space left on device\)"):
        sink.write(frame(), DETECTION)


def read_video(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        ok, image = capture.read()
        if not ok:
            return frames, capture.get(cv2.CAP_PROP_FPS)
        frames.append(image)


def test_a_video_appears_complete_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "x.mp4"
    sink = VideoSink(path, 12.5, live=False, untrained=False)
    for index in range(10):
        sink.write(frame(index=index, size=(101, 301), level=20 * index), DETECTION)
    assert not path.exists()
    sink.skip(BadFrame(10, "x", "broken"))
    sink.close()
    assert files(tmp_path) == ["new/x.mp4"]
    frames, fps = read_video(path)
    assert len(frames) == 10 and fps == pytest.approx(12.5)
    assert frames[0].shape[0] % 2 == frames[0].shape[1] % 2 == 0
    assert frames[0].shape[1] == 302
    # The last row and column of an odd size are black.
    assert [round(f[-20:-4, 250:280].mean() / 20) for f in frames] == list(range(10))


def test_a_video_takes_frames_of_other_sizes(tmp_path):
    path = tmp_path / "x.mp4"
    sink = VideoSink(path, None, live=False, untrained=True)
    for size in ((240, 320), (100, 640), (50, 200), (1000, 500)):
        sink.write(frame(size=size), DETECTION)
    sink.close()
    frames, _ = read_video(path)
    assert len({f.shape for f in frames}) == 1 and len(frames) == 4


def test_a_live_video_plays_at_the_speed_of_life(tmp_path):
    path = tmp_path / "x.mp4"
    sink = VideoSink(path, 10, live=True, untrained=False)
    for index, at in enumerate([0.0, 0.5, 1.0, 1.02, 1000.0, 1000.5]):
        sink.write(frame(index=index, at=5000 + at), DETECTION)
    sink.close()
    frames, _ = read_video(path)
    # 1 + 5 + 5; one more at once; a gap too long to repeat for; 5 for the last half second.
    assert len(frames) == pytest.approx(1 + 5 + 5 + 1 + 1 + 5, abs=1)


def test_a_video_without_frames_leaves_no_file(tmp_path):
    VideoSink(tmp_path / "x.mp4", 25, live=False, untrained=False).close()
    assert files(tmp_path) == []


def test_a_video_named_like_a_folder(tmp_path):
    with pytest.raises(SinkError, match="is a folder"):
        VideoSink(tmp_path, 25, live=False, untrained=False)


def test_fitting_keeps_the_whole_image_and_its_proportions():
    out = fit(np.full((100, 400, 3), 255, np.uint8), 100, 200)
    assert out.shape == (100, 200, 3)
    assert (out[25:75] == 255).all() and (out[:25] == 0).all() and (out[75:] == 0).all()
    same = np.zeros((4, 4, 3), np.uint8)
    assert fit(same, 4, 4) is same


@pytest.mark.parametrize("display", [None, ":987"])
def test_without_a_display_a_window_is_refused_and_the_process_lives(monkeypatch, display):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("QT_QPA_PLATFORM", raising=False)
    if display:
        monkeypatch.setenv("DISPLAY", display)
    assert not has_display()
    with pytest.raises(SinkError, match="no display"):
        WindowSink("x", untrained=False)


def test_the_memory_of_names_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("kanoclip.runtime.sinks.images._REMEMBERED", 2)
    root = tmp_path / "in"
    root.mkdir()
    sink = ImageFolderSink(tmp_path / "out", root, untrained=False)
    for index, name in enumerate(["x.bmp", "x.bmp.jpg", "1.png", "2.png", "3.png"]):
        sink.write(frame(root / name, index), DETECTION)
    assert files(tmp_path / "out") == ["1.png", "2.png", "3.png", "x.bmp.jpg", "x.bmp_1.jpg"]
    assert len(sink._taken) == 2
