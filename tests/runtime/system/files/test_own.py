from __future__ import annotations

import pytest

from kanoclip.runtime.sinks.snapshots.reader import ANNOTATED, IMAGE, MAP, RECORD
from kanoclip.runtime.system.files.own import MARK, Own, mark_file, mark_folder, own_in


def test_a_marked_folder_is_left_out_unless_it_is_named(tmp_path):
    assert not own_in(tmp_path).has("a.jpg")
    mark_folder(tmp_path)
    assert own_in(tmp_path).has("a.jpg")
    assert not own_in(tmp_path, named=True).has("a.jpg")


@pytest.mark.parametrize(
    "name", ["plot.png", "*", "# plot.png", '"q".png', "two\nlines.png", "ü \u202e.png", "a\\b.png"]
)
def test_a_marked_file_is_left_out_by_any_name(tmp_path, name):
    mark_file(tmp_path / name)
    for named in (False, True):
        own = own_in(tmp_path, named=named)
        assert own.has(name)
        assert not own.has("photo.png")


def test_marks_are_written_once_and_add_up(tmp_path):
    for _ in range(3):
        mark_file(tmp_path / "a.png")
        mark_file(tmp_path / "b.png")
    text = (tmp_path / MARK).read_text()
    assert text.startswith("# Written by kanoclip")
    assert text.splitlines()[1:] == ['"a.png"', '"b.png"']
    mark_folder(tmp_path)
    assert own_in(tmp_path).everything


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\0", b'"unclosed\n', b"{}\n[1]\n" * 1000])
def test_a_damaged_mark_is_none(tmp_path, content):
    (tmp_path / MARK).write_bytes(content)
    assert not own_in(tmp_path).everything
    assert not own_in(tmp_path).has("a.png")


def test_a_mark_that_is_a_folder_is_none(tmp_path):
    (tmp_path / MARK).mkdir()
    assert own_in(tmp_path) == Own()


def test_snapshots_of_earlier_versions_have_no_mark(tmp_path):
    name = "20231114T221320.250Z_camera-0_00000042"
    own = own_in(tmp_path, named=True)
    assert own.has(name + ANNOTATED) and own.has(name + MAP)
    assert not own.has(name + IMAGE), "the image alone may be scored and learned from"
    assert not own.has(name + RECORD)
    assert not own.has("holiday.annotated.jpg")
