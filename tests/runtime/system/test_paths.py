import os

import pytest

from kanoclip.runtime.system import paths
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
    write = paths._write

    def full(beside, content, durable):
        write(beside, content[:2], durable)
        raise OSError(28, "No space left on device", beside)

    monkeypatch.setattr(paths, "_write", full)
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


def test_permissions_stay_and_new_files_have_the_usual_ones(tmp_path):
    path, usual = tmp_path / "file", tmp_path / "usual"
    usual.touch()
    replace_file(path, b"one")
    assert path.stat().st_mode == usual.stat().st_mode
    path.chmod(0o604)
    replace_file(str(path), b"two")
    assert path.stat().st_mode & 0o777 == 0o604


def test_what_is_to_last_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    path, seen = tmp_path / "file", []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append((os.fstat(descriptor).st_size, path.exists())))
    replace_file(path, b"quick")
    assert seen == []
    path.unlink()
    replace_file(path, b"lasting", durable=True)
    assert seen == [(7, False)] and path.read_bytes() == b"lasting"


def test_a_killed_writer_leaves_what_can_be_told_from_the_rest(tmp_path, monkeypatch):
    def killed(*_):
        raise SystemExit  # no OSError: nothing tidies up

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(SystemExit):
        replace_file(tmp_path / "map.png", b"half")
    monkeypatch.undo()
    replace_file(tmp_path / "map.png", b"whole")
    assert [path.name for path in tmp_path.glob(paths.UNFINISHED)] == [f".map.png.{os.getpid()}.part"]
