"""Pieces of a recording: named without collisions, the oldest deleted, other files left alone."""

from __future__ import annotations

import os

import pytest

from kanoclip.runtime.sinks.video.segments import delete_oldest, keep_aside, stamped

MOMENT = 1_700_000_000


def put(path, size):
    path.write_bytes(b"0" * size)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_eleventh_of_a_second_is_newer_than_the_second(tmp_path):
    """By number, not by letter: x-...-10 would come before x-...-2."""
    path = tmp_path / "x.mp4"
    pieces = [put(stamped(path, MOMENT), 10) for _ in range(11)]
    assert pieces[0].name == "x-20231114T221320Z.mp4" and pieces[10].name == "x-20231114T221320Z-11.mp4"
    delete_oldest(path, 20)
    assert names(tmp_path) == sorted(piece.name for piece in pieces[-2:])


@pytest.mark.parametrize(("bound", "left"), [(30, 3), (29, 2), (10, 1), (9, 0), (0, 0), (1 << 40, 3)])
def test_as_many_stay_as_fit(tmp_path, bound, left):
    path = tmp_path / "x.mp4"
    pieces = [put(stamped(path, MOMENT + second), 10) for second in range(3)]
    delete_oldest(path, bound)
    assert names(tmp_path) == [piece.name for piece in pieces[3 - left :]]


def test_only_pieces_of_this_recording_count(tmp_path):
    others = [
        "x.mp4",
        "x-holiday.mp4",
        "x-20231114T221320Z.mkv",
        "xx-20231114T221320Z.mp4",
        "x-20231114T221320Z-.mp4",
        "x-20231114T221320Z-2.mp4.part",
        "x-y-20231114T221320Z.mp4",
    ]
    for name in others:
        put(tmp_path / name, 1000)
    put(tmp_path / "x-20231114T221320Z.mp4", 10)
    delete_oldest(tmp_path / "x.mp4", 0)
    assert names(tmp_path) == sorted(others)


def test_a_name_is_no_pattern(tmp_path):
    put(tmp_path / "lineX1-20231114T221320Z.mp4", 10)
    delete_oldest(tmp_path / "line.1.mp4", 0)
    assert len(names(tmp_path)) == 1


def test_what_is_there_is_kept_aside_by_its_own_time(tmp_path):
    path = put(tmp_path / "x.mp4", 10)
    os.utime(path, (MOMENT, MOMENT))
    keep_aside(path)
    assert names(tmp_path) == ["x-20231114T221320Z.mp4"]
    keep_aside(path)  # nothing is there
    put(path, 0)
    keep_aside(path)  # an empty file is worth nothing
    assert names(tmp_path) == ["x-20231114T221320Z.mp4", "x.mp4"]
