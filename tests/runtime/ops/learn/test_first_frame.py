"""The first frame's size is told, and no frame is lost or read twice for that."""

from __future__ import annotations

from learning import folder

from kanoclip.runtime.ops.learn.first_frame import FirstFrame
from kanoclip.runtime.sources import open_source


def read(source):
    return [item.source.rpartition("/")[2] for item in source.frames()]


def test_the_first_that_can_be_read_tells_the_size(tmp_path):
    place = folder(tmp_path / "good", 4, size=(120, 40))
    (place / "00.png").write_bytes(b"no image")
    source = FirstFrame(open_source(str(place)))
    assert source.size() == (120, 40) and source.count == 4 and source.root == place
    assert read(source) == ["00.png", "01.png", "02.png", "03.png"]


def test_none_can_be_read(tmp_path):
    (tmp_path / "only.png").write_bytes(b"no image")
    source = FirstFrame(open_source(str(tmp_path)))
    assert source.size() is None and read(source) == ["only.png"]
