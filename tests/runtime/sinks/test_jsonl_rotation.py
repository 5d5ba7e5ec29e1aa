"""JSON lines that grow for months: rotation, logrotate's ways, and lines that were cut."""

from __future__ import annotations

import json
import os
import shutil
import threading

import pytest
from sink_helpers import ANOMALY, make_frame

from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.sinks.jsonl import JsonLinesSink, Rotation
from kanoclip.runtime.types import BadFrame


def frames(*paths):
    return [json.loads(line)["frame"] for path in paths for line in path.read_text().splitlines()]


def write(sink, *indices):
    for index in indices:
        sink.write(make_frame(index), ANOMALY)


def test_a_file_is_overwritten_or_gone_on_with(tmp_path):
    path = tmp_path / "x.jsonl"
    for append, expected in ((False, [0]), (True, [0, 1]), (False, [2])):
        sink = JsonLinesSink(str(path), append=append)
        write(sink, expected[-1])
        sink.close()
        assert frames(path) == expected


@pytest.mark.parametrize("size", [1, 900, 5000])
def test_rotation_keeps_so_many_whole_files_in_order(tmp_path, size):
    path = tmp_path / "x.jsonl"
    sink = JsonLinesSink(str(path), append=True, rotation=Rotation(size, keep=3))
    write(sink, *range(100))
    sink.close()
    names = ["x.jsonl", "x.jsonl.1", "x.jsonl.2", "x.jsonl.3"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    kept = frames(*(tmp_path / name for name in reversed(names)))
    assert kept == list(range(100 - len(kept), 100)), "nothing between the oldest kept and the newest is missing"
    longest = max(len(line) for name in names for line in (tmp_path / name).read_bytes().splitlines(keepends=True))
    for name in names:
        assert (tmp_path / name).stat().st_size <= max(size, longest)


def test_rotation_goes_on_with_what_earlier_runs_left(tmp_path):
    path = tmp_path / "x.jsonl"
    for run in range(4):
        sink = JsonLinesSink(str(path), append=True, rotation=Rotation(1000, keep=2))
        write(sink, 2 * run, 2 * run + 1)
        sink.close()
    assert frames(tmp_path / "x.jsonl.2", tmp_path / "x.jsonl.1", path)[-4:] == [4, 5, 6, 7]


def test_logrotate_moves_the_file_away(tmp_path):
    path, moved = tmp_path / "x.jsonl", tmp_path / "x.jsonl-20260101"
    sink = JsonLinesSink(str(path), append=True)
    write(sink, 0)
    path.rename(moved)
    write(sink, 1, 2)
    assert (frames(moved), frames(path)) == ([0], [1, 2])
    path.unlink()
    write(sink, 3)
    assert frames(path) == [3]
    sink.close()


def test_logrotate_copies_and_truncates(tmp_path):
    path = tmp_path / "x.jsonl"
    sink = JsonLinesSink(str(path))
    write(sink, 0)
    os.truncate(path, 0)
    write(sink, 1)
    sink.close()
    assert path.read_bytes()[:1] == b"{", "no hole"
    assert frames(path) == [1]


def test_a_link_that_points_elsewhere_is_followed_when_asked(tmp_path):
    first, second, link = tmp_path / "1", tmp_path / "2", tmp_path / "x.jsonl"
    link.symlink_to(first)
    sink = JsonLinesSink(str(link))
    write(sink, 0)
    link.unlink()
    link.symlink_to(second)
    asker = threading.Thread(target=sink.reopen)
    asker.start()
    asker.join()
    write(sink, 1)
    sink.close()
    assert (frames(first), frames(second)) == ([0], [1])


def test_a_line_that_was_cut_is_ended_before_the_next(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"frame": 0}\n{"frame": 1, "sco')
    sink = JsonLinesSink(str(path), append=True)
    write(sink, 2)
    sink.close()
    lines = path.read_text().splitlines()
    assert lines[1] == '{"frame": 1, "sco' and json.loads(lines[2])["frame"] == 2 and len(lines) == 3


def test_the_stream_of_several_is_named(tmp_path):
    path = tmp_path / "x.jsonl"
    sink = JsonLinesSink(str(path))
    sink.write(make_frame(0, stream="belt"), ANOMALY)
    sink.skip(BadFrame(1, "x.png", "broken", stream="belt"))
    sink.write(make_frame(2), ANOMALY)
    sink.close()
    assert [json.loads(line).get("stream") for line in path.read_text().splitlines()] == ["belt", "belt", None]


def test_a_folder_that_was_taken_away_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "folder" / "x.jsonl"
    sink = JsonLinesSink(str(path), append=True)
    shutil.rmtree(path.parent)
    with pytest.raises(SinkError, match=r"x\.jsonl: cannot be written \(No such file"):
        write(sink, 0)
    sink.close()


def test_a_pipe_is_written_to(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    got = []
    reader = threading.Thread(target=lambda: got.append(path.read_text()))
    reader.start()
    sink = JsonLinesSink(str(path), append=True, rotation=Rotation(10))
    write(sink, 0, 1)
    sink.close()
    reader.join(5)
    assert [json.loads(line)["frame"] for line in got[0].splitlines()] == [0, 1]
