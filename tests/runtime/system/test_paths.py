from pathlib import Path

import pytest

from kanoclip.runtime.system.paths import replace_file


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "file.bin"
    for content in (b"one", b"", b"three" * 1000):
        replace_file(path, content)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file.bin"
    replace_file(path, b"old")
    write = Path.write_bytes

    def full(self, content):
        write(self, content[:2])
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new content")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_places_that_are_none(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "x", tmp_path / "nowhere" / "x"):
        with pytest.raises(OSError):
            replace_file(path, b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        replace_file(tmp_path / "folder", b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
