from __future__ import annotations

from pathlib import Path

import pytest

from kanoclip.runtime.sources.reads import reads_of


@pytest.mark.parametrize("spec", ["rtsp://camera/1", "test://", "gst://videotestsrc", "~nosuchuser/x.png", "a\0b"])
def test_what_has_no_files(spec):
    assert reads_of(spec) == []


def test_a_file_a_folder_a_pattern_and_a_watched_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    for name in ("a.png", "b.jpg", "c.txt"):
        Path("in", name).touch()
    (one,) = reads_of("in/a.png")
    assert (one.path, list(one.files())) == (Path("in/a.png"), [Path("in/a.png")])
    for spec in ("in", "in/*", "watch://in"):
        (one,) = reads_of(spec)
        assert sorted(one.files()) == [Path("in/a.png"), Path("in/b.jpg")], spec


def test_what_cannot_be_read_is_refused_elsewhere(tmp_path):
    (one,) = reads_of(str(tmp_path))
    assert list(one.files()) == []
    assert [r.path for r in reads_of(str(tmp_path / "none.mp4"))] == [tmp_path / "none.mp4"]
