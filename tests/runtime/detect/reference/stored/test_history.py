"""Memories in a bundle: put, gone back from, and whole whatever happens."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from disks import fill, small_disk
from references import memory

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.parts import HISTORY, Thresholds
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME
from kanoclip.runtime.detect.reference.stored.history import memory_of, put, undo
from kanoclip.runtime.engines.tensorrt.building.key import engine_key
from kanoclip.runtime.engines.tensorrt.device import DeviceInfo
from kanoclip.runtime.engines.tensorrt.flavour import Flavour
from kanoclip.runtime.errors import BundleError, MemoryFileError


@pytest.fixture
def own(make_toy_bundle, tmp_path):
    return make_toy_bundle(tmp_path / "own.kanoclip", grid=(8, 8), memory_rows=64)


def made(folder, seed=0):
    digest = Bundle.open(folder).manifest.descriptor.sha256
    return memory(3, rows=20 + seed, channels=3, seed=seed, digest=digest)


def at(value):
    return Thresholds(value, value, 0, f"at {value}")


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_put_in_place(own):
    before = files(own)
    assert memory_of(Bundle.open(own), "object") is None
    assert put(Bundle.open(own), None, "object", made(own), at(0.7)) == own
    after = Bundle.open(own)  # every file verified
    (name,) = set(files(own)) - set(before)
    assert after.manifest.references["object"].file == name and after.manifest.thresholds == at(0.7)
    found = memory_of(after, "object")
    assert np.array_equal(found.rows, made(own).rows) and found.before.image == 0.5
    assert after.manifest.name == "toy"


def test_put_into_a_copy(own, tmp_path):
    before = files(own)
    copy = tmp_path / "bottle.kanoclip"
    assert put(Bundle.open(own), copy, "object", made(own), at(0.7)) == copy
    assert files(own) == before
    assert Bundle.open(copy).manifest.name == "bottle" and memory_of(Bundle.open(copy), "object") is not None


def test_the_way_back(own):
    at_first = Bundle.open(own).manifest
    for seed in range(3):
        put(Bundle.open(own), None, "object", made(own, seed), at(0.1 * (seed + 1)))
    for rows, threshold in ((21, at(0.2)), (20, at(0.1))):
        assert len(undo(Bundle.open(own), "object").rows) == rows
        now = Bundle.open(own)
        assert len(memory_of(now, "object").rows) == rows and now.manifest.thresholds == threshold
    assert undo(Bundle.open(own), "object") is None
    now = Bundle.open(own).manifest
    assert now.references == {} and now.files == at_first.files and now.thresholds == at_first.thresholds
    assert [path for path in own.rglob("*.safetensors")] == []
    with pytest.raises(MemoryFileError, match="nothing to undo"):
        undo(Bundle.open(own), "object")


def test_the_history_is_bounded(own):
    for seed in range(HISTORY + 3):
        put(Bundle.open(own), None, "object", made(own, seed), at(0.5))
    info = Bundle.open(own).manifest.references["object"]
    assert len(info.history) == HISTORY and len(list(own.rglob("*.safetensors"))) == HISTORY + 1
    assert len(memory_of(Bundle.open(own), "object").rows) == 20 + HISTORY + 2


def test_classes_by_themselves(make_toy_bundle, tmp_path):
    own = make_toy_bundle(tmp_path / "two.kanoclip", classes=("nut", "wood screw"), grid=(8, 8), memory_rows=64)
    same = made(own)
    put(Bundle.open(own), None, "nut", same, at(0.7))
    put(Bundle.open(own), None, "wood screw", same, at(0.8))
    now = Bundle.open(own).manifest
    assert now.thresholds_of("nut") == at(0.7) and now.thresholds_of("wood screw") == at(0.8)
    assert now.thresholds.image == 0.5
    undo(Bundle.open(own), "nut")
    assert set(Bundle.open(own).manifest.references) == {"wood screw"}
    assert memory_of(Bundle.open(own), "wood screw") is not None


def test_a_shared_file_stays(make_toy_bundle, tmp_path):
    own = make_toy_bundle(tmp_path / "two.kanoclip", classes=("nut", "bolt"), grid=(8, 8), memory_rows=64)
    same = made(own)
    for name in ("nut", "bolt"):
        put(Bundle.open(own), None, name, same, at(0.5))
    names = {info.file for info in Bundle.open(own).manifest.references.values()}
    undo(Bundle.open(own), "nut")
    assert memory_of(Bundle.open(own), "bolt") is not None and len(names) in (1, 2)


@pytest.mark.parametrize("failing", ["references", MANIFEST_NAME])
def test_a_failed_write_leaves_the_old_memory(own, monkeypatch, failing):
    put(Bundle.open(own), None, "object", made(own), at(0.7))
    before, rename = files(own), os.replace

    def replace_or_fail(source, target):
        if failing in str(target):
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace_or_fail)
    with pytest.raises(BundleError, match=r"No space left.*nothing was changed"):
        put(Bundle.open(own), None, "object", made(own, 1), at(0.8))
    assert files(own) == before
    assert len(memory_of(Bundle.open(own), "object").rows) == 20


def test_a_full_disk(own, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    with small_disk(disk, 1 << 20):
        folder = shutil.copytree(own, disk / "own.kanoclip")
        put(Bundle.open(folder), None, "object", made(own), at(0.7))
        before = files(folder)
        fill(disk / "rest")
        with pytest.raises(BundleError, match="nothing was changed"):
            put(Bundle.open(folder), None, "object", made(own, 1), at(0.8))
        assert files(folder) == before and len(memory_of(Bundle.open(folder), "object").rows) == 20


def test_a_wrong_digest_is_refused_at_the_door(own):
    put(Bundle.open(own), None, "object", made(own), at(0.7))
    (path,) = own.rglob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match="damaged"):
        Bundle.open(own)


def test_learning_leaves_the_graph_and_its_engines_as_they_are(own):
    """An engine is found by its key: the graph's digest, the batch and the rows, none of which a memory changes."""
    before = Bundle.open(own)
    flavour = Flavour("tensorrt", None, "10.3.0")
    gpu = DeviceInfo(0, "Orin", "8.7", 12, "540.4", integrated=True)
    content, key = before.model_path.read_bytes(), engine_key(before, flavour, gpu)
    put(before, None, "object", made(own), at(0.7))
    after = Bundle.open(own)
    assert after.manifest.references and after.graph_digest() == before.graph_digest()
    assert after.model_path.read_bytes() == content and engine_key(after, flavour, gpu) == key
