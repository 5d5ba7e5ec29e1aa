"""Every branch of the engine cache: hit, other version, other GPU, damaged, two processes, read-only, no space."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from kanoclip.runtime.engines.tensorrt.building import cache as module
from kanoclip.runtime.engines.tensorrt.building.cache import BuiltEngine, EngineCache
from kanoclip.runtime.engines.tensorrt.building.key import EngineKey
from kanoclip.runtime.system import paths

KEY = EngineKey("tensorrt", "10.3.0", "ab" * 32, 1, "linux-aarch64", "8.7", "Orin", 12)


def built(content=b"engine", fp32=(), compared=True):
    return BuiltEngine(memoryview(content), fp32, compared)


class Builder:
    def __init__(self, content=b"engine"):
        self.content, self.count = content, 0

    def __call__(self):
        self.count += 1
        return built(self.content)


def never():
    raise AssertionError("nobody else builds")


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / "engines")


def test_hit(cache):
    build = Builder()
    first, trouble = cache.get_or_build(KEY, build, never)
    again, trouble_again = cache.get_or_build(KEY, build, never)
    assert build.count == 1 and trouble is trouble_again is None
    assert bytes(first.serialized) == bytes(again.serialized) == b"engine"


def test_what_was_found_out_is_kept(cache):
    cache.put(KEY, built(fp32=(3, 17), compared=False))
    found = cache.get(KEY)
    assert found.fp32_attention == (3, 17) and found.compared is False


@pytest.mark.parametrize(
    "change",
    [
        {"version": "10.3.1"},
        {"version": "11.0.0"},
        {"device": "Orin NX"},
        {"compute_capability": "8.9"},
        {"cuda_major": 13},
        {"platform": "linux-x86_64"},
        {"flavour": "tensorrt-rtx"},
        {"model": "cd" * 32},
        {"max_batch": 4},
    ],
)
def test_another_version_gpu_or_graph_is_another_engine(cache, change):
    cache.put(KEY, built())
    build = Builder(b"another")
    found, _ = cache.get_or_build(replace(KEY, **change), build, never)
    assert build.count == 1 and bytes(found.serialized) == b"another"
    assert bytes(cache.get(KEY).serialized) == b"engine", "the first one is still there"


def engine_file(cache):
    (path,) = cache.folder.glob("*.engine")
    return path


def change_facts(path, **changes):
    facts = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**facts, **changes}))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b"engina"),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
        lambda path: path.with_suffix(".json").unlink(),
        lambda path: path.with_suffix(".json").write_text("{"),
        lambda path: path.with_suffix(".json").write_text("[]"),
        lambda path: path.with_suffix(".json").write_bytes(b"\xff"),
        lambda path: change_facts(path, key={}),
        lambda path: change_facts(path, fp32_attention=None),
        lambda path: change_facts(path, sha256=None),
    ],
)
def test_damaged_engines_are_built_again(cache, damage):
    cache.put(KEY, built())
    damage(engine_file(cache))
    assert cache.get(KEY) is None
    build = Builder()
    found, trouble = cache.get_or_build(KEY, build, never)
    assert build.count == 1 and trouble is None and bytes(found.serialized) == b"engine"
    assert bytes(cache.get(KEY).serialized) == b"engine"


CHILD = """
import sys, time
from pathlib import Path
from kanoclip.runtime.engines.tensorrt.building.cache import BuiltEngine, EngineCache
from kanoclip.runtime.engines.tensorrt.building.key import EngineKey
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
key = EngineKey("tensorrt", "10.3.0", "ab" * 32, 1, "linux-aarch64", "8.7", "Orin", 12)
def build():
    with (out / "builds").open("a") as file:
        file.write("x")
    (out / "started").touch()
    time.sleep(float(sys.argv[3]))
    return BuiltEngine(memoryview(b"engine"), (), True)
def waiting():
    (out / "waiting").touch()
found, trouble = EngineCache(folder).get_or_build(key, build, waiting)
print(bytes(found.serialized).decode(), trouble)
"""


def child(folder, out, seconds):
    command = [sys.executable, "-c", CHILD, str(folder), str(out), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(path, seconds=30):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.01)


def test_two_processes_at_once_build_once(tmp_path):
    first = child(tmp_path / "engines", tmp_path, 2)
    wait_for(tmp_path / "started")
    second = child(tmp_path / "engines", tmp_path, 2)
    wait_for(tmp_path / "waiting")
    assert [p.communicate(timeout=60)[0].strip() for p in (first, second)] == ["engine None"] * 2
    assert (tmp_path / "builds").read_text() == "x"


def test_a_process_killed_in_the_build_leaves_no_lock_and_nothing_half(tmp_path):
    first = child(tmp_path / "engines", tmp_path, 60)
    wait_for(tmp_path / "started")
    first.kill()
    first.communicate(timeout=60)
    build = Builder()
    found, trouble = EngineCache(tmp_path / "engines").get_or_build(KEY, build, never)
    assert build.count == 1 and trouble is None and bytes(found.serialized) == b"engine"


def test_a_folder_that_cannot_be_written_still_gives_an_engine(tmp_path):
    (tmp_path / "file").write_text("")
    cache = EngineCache(tmp_path / "file" / "engines")  # root may write into folders that say no
    build = Builder()
    for count in (1, 2):
        found, trouble = cache.get_or_build(KEY, build, never)
        assert build.count == count and bytes(found.serialized) == b"engine"
        assert str(cache.folder) in trouble and "XDG_CACHE_HOME" in trouble


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(cache):
    cache.folder.mkdir(parents=True)
    cache.folder.chmod(0o500)
    found, trouble = cache.get_or_build(KEY, Builder(), never)
    assert bytes(found.serialized) == b"engine" and "Permission denied" in trouble


@pytest.mark.parametrize("suffix", [".engine", ".json"])
def test_no_space(cache, monkeypatch, suffix):
    original = module.replace_file

    def full(path, content):
        if path.suffix == suffix:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(path, content)

    monkeypatch.setattr(module, "replace_file", full)
    build = Builder()
    found, trouble = cache.get_or_build(KEY, build, never)
    assert bytes(found.serialized) == b"engine" and "No space left" in trouble
    assert cache.get(KEY) is None, "an engine without its facts is none"
    monkeypatch.undo()
    _, trouble = cache.get_or_build(KEY, build, never)
    assert build.count == 2 and trouble is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_real_full_disk_leaves_the_old_engine_whole(cache, monkeypatch):
    cache.put(KEY, built(b"old"))

    def full(path, content, durable):
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(content)

    monkeypatch.setattr(paths, "_write", full)
    with pytest.raises(OSError, match="No space"):
        cache.put(KEY, built(b"new"))
    assert bytes(cache.get(KEY).serialized) == b"old"


def test_an_error_in_the_build_frees_the_lock(cache):
    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.get_or_build(KEY, fail, never)
    _, trouble = cache.get_or_build(KEY, Builder(), never)
    assert trouble is None


def test_the_longest_unused_engines_go_when_there_are_too_many(tmp_path):
    cache = EngineCache(tmp_path, limit=25)
    keys = [replace(KEY, version=f"10.{minor}.0") for minor in range(3, 6)]
    for age, key in zip((300, 200, 100), keys, strict=True):
        cache.put(key, built(b"0123456789"))
        path = tmp_path / (key.stem + ".engine")
        if path.exists():
            os.utime(path, (time.time() - age, time.time() - age))
    assert [cache.get(key) is not None for key in keys] == [False, True, True]
    assert not list(tmp_path.glob(f"{keys[0].stem}.*.json"))
    big = replace(KEY, max_batch=9)
    cache.put(big, built(b"x" * 100))
    assert cache.get(big) is not None, "the newest stays even where it alone is too large"


def test_use_counts_as_new(tmp_path):
    cache = EngineCache(tmp_path, limit=25)
    keys = [replace(KEY, version=f"10.{minor}.0") for minor in range(3, 6)]
    for age, key in zip((300, 200), keys[:2], strict=True):
        cache.put(key, built(b"0123456789"))
        os.utime(tmp_path / (key.stem + ".engine"), (time.time() - age, time.time() - age))
    assert cache.get(keys[0]) is not None
    cache.put(keys[2], built(b"0123456789"))
    assert [cache.get(key) is not None for key in keys] == [True, False, True]
