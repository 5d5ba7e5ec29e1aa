import os
import pwd
from pathlib import Path

import pytest

from kanoclip.runtime.system import paths
from kanoclip.runtime.system.paths import cache_folder, cache_path, config_path, replace_file


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
    (tmp_path / "map.png").touch()
    (tmp_path / ".hidden").touch()
    assert [path.name for path in tmp_path.glob(paths.UNFINISHED)] == [f".map.png.{os.getpid()}.part"]


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_folders_of_the_user(environment, tmp_path):
    assert cache_path("engines") == Path("/home/somebody/.cache/kanoclip/engines")
    assert config_path() == Path("/home/somebody/.config/kanoclip")
    environment.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    environment.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert cache_path("openvino/f32") == tmp_path / "cache" / "kanoclip" / "openvino" / "f32"
    assert config_path() == tmp_path / "config" / "kanoclip"
    assert list(tmp_path.iterdir()) == [], "asking makes none"
    assert cache_folder("openvino/f32").is_dir()


@pytest.mark.parametrize("value", ["", "  ", "relative/cache"])
def test_a_variable_that_is_no_folder_counts_as_unset(environment, value):
    environment.setenv("XDG_CACHE_HOME", value)
    assert cache_path("trials") == Path("/home/somebody/.cache/kanoclip/trials")


def test_a_user_without_a_home(environment, tmp_path):
    environment.delenv("HOME")
    environment.setattr(pwd, "getpwuid", {}.__getitem__)
    for find, place in ((lambda: cache_path("trials"), "~/.cache"), (config_path, "~/.config")):
        with pytest.raises(OSError, match="this user has no home") as caught:
            find()
        assert caught.value.filename == place
    environment.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_path("trials") == tmp_path / "kanoclip" / "trials"
