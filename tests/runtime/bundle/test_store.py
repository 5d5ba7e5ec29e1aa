"""Thresholds in a manifest: whole or not at all, in place or in a copy."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from kanoclip.runtime.bundle.bundle import Bundle, shipped_bundle
from kanoclip.runtime.bundle.manifest.parts import IN_GRAPH, FileInfo, ReferenceInfo, Thresholds
from kanoclip.runtime.bundle.manifest.reading import read_manifest
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME
from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.bundle.store import check_place, locked, store, with_tiles, write
from kanoclip.runtime.errors import BundleError
from kanoclip.runtime.system import paths

NEW = Thresholds(0.25, 0.75, 9, "measured on line 3", "0123456789abcdef" * 4)


@pytest.fixture
def own(toy_bundle, tmp_path):
    return Path(shutil.copytree(toy_bundle, tmp_path / "own.kanoclip"))


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_in_place_only_the_manifest_changes_and_the_old_values_are_kept(own):
    before, bundle = files(own), Bundle.open(own)
    assert store(bundle, None, None, NEW) == own
    after = Bundle.open(own).manifest
    assert after.thresholds == NEW
    ((name, note),) = set(after.provenance.items()) - set(bundle.manifest.provenance.items())
    assert name.startswith("thresholds until 20")
    assert note == "image 0.5, pixel 0.5, min_area 0 (made up for tests)"
    assert (
        replace(after, thresholds=bundle.manifest.thresholds, provenance=bundle.manifest.provenance) == bundle.manifest
    )
    assert {k: v for k, v in files(own).items() if k != MANIFEST_NAME} == {
        k: v for k, v in before.items() if k != MANIFEST_NAME
    }
    store(Bundle.open(own), None, None, replace(NEW, image=0.3))
    assert len(Bundle.open(own).manifest.provenance) == len(bundle.manifest.provenance) + 2


def test_a_copy_is_a_bundle_and_the_original_stays(own, tmp_path):
    (own / "notes.txt").write_text("not the bundle's")
    before = files(own)
    copy = tmp_path / "copy.kanoclip"
    assert store(Bundle.open(own), copy, None, NEW) == copy
    assert Bundle.open(copy).manifest.thresholds == NEW
    assert files(own) == before
    assert sorted(files(copy)) == sorted(set(before) - {"notes.txt"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.kanoclip", "own.kanoclip"]


def test_a_class_of_its_own(make_toy_bundle, tmp_path):
    folder = make_toy_bundle(tmp_path / "two.kanoclip", classes=("nut", "wood screw"))
    store(Bundle.open(folder), None, "wood screw", NEW)
    manifest = Bundle.open(folder).manifest
    assert manifest.thresholds_of("wood screw") == NEW
    assert manifest.thresholds_of("nut") == manifest.thresholds != NEW
    assert any(name.startswith("thresholds of wood screw until") for name in manifest.provenance)


def test_the_package_s_own_bundle_is_not_edited(tmp_path):
    with pytest.raises(BundleError, match=r"belongs to the package: .*--output"):
        check_place(shipped_bundle(), None)
    link = tmp_path / "mine.kanoclip"
    link.symlink_to(shipped_bundle())
    with pytest.raises(BundleError, match="belongs to the package"):
        check_place(link, None)
    check_place(shipped_bundle(), tmp_path / "copy.kanoclip")


def test_places_that_are_refused(own, tmp_path):
    check_place(own, None)
    with pytest.raises(BundleError, match=r"own\.kanoclip is there already"):
        check_place(own, own)
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(BundleError, match="dangling is there already"):
        check_place(own, tmp_path / "dangling")
    with pytest.raises(BundleError, match="no folder that can be written to"):
        check_place(own, tmp_path / "none" / "copy.kanoclip")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_folders_without_permission(own, tmp_path):
    own.chmod(0o500)
    try:
        with pytest.raises(BundleError, match="cannot be written to"):
            check_place(own, None)
    finally:
        own.chmod(0o700)


def fail(*_, **__):
    raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_the_old_manifest(own, monkeypatch):
    before, bundle = files(own), Bundle.open(own)
    monkeypatch.setattr(paths, "_write", fail)
    with pytest.raises(BundleError, match=r"cannot be written \(No space left on device\); nothing was changed"):
        store(bundle, None, None, NEW)
    monkeypatch.undo()
    assert files(own) == before


@pytest.mark.parametrize("what", [(shutil, "copyfile"), (Path, "rename")])
def test_a_full_disk_leaves_no_half_copy(own, tmp_path, monkeypatch, what):
    bundle = Bundle.open(own)
    monkeypatch.setattr(*what, fail)
    with pytest.raises(BundleError, match=r"copy.kanoclip cannot be written"):
        store(bundle, tmp_path / "copy.kanoclip", None, NEW)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["own.kanoclip"]


def test_other_tiles_for_the_same_graph(toy_bundle):
    bundle, grid = Bundle.open(toy_bundle), TileGrid(3, 1, 0.15)
    manifest = with_tiles(bundle, grid)
    assert replace(manifest, tiles=None) == bundle.manifest and manifest.tiles == grid
    assert manifest.map_size == (32 + 54, 32) and bundle.manifest.map_size == (32, 32)
    assert read_manifest(manifest.to_json()) == manifest
    tiled = replace(bundle, manifest=manifest)
    assert with_tiles(tiled, grid) is manifest
    assert with_tiles(tiled, None) == with_tiles(tiled, TileGrid(1, 1, 0.15)) == bundle.manifest


def test_tiles_are_not_changed_where_something_hangs_on_them(toy_bundle):
    bundle, grid = Bundle.open(toy_bundle), TileGrid(3, 1, 0.15)
    camera = replace(bundle.manifest, preprocessing=replace(bundle.manifest.preprocessing, resize=IN_GRAPH))
    with pytest.raises(BundleError, match="export it without --camera-size for tiles"):
        with_tiles(replace(bundle, manifest=camera), grid)
    learned = replace(bundle.manifest, references={"object": ReferenceInfo("references/a.safetensors")})
    with pytest.raises(BundleError, match=r"memories learned of other tiles \(object\)"):
        with_tiles(replace(bundle, manifest=learned), grid)
    assert with_tiles(replace(bundle, manifest=learned), None) == learned


def test_a_second_writer_is_refused(own):
    with locked(own):
        with pytest.raises(BundleError, match="another process"), locked(own):
            pass
        assert (own / ".changing").exists()
    assert not (own / ".changing").exists()
    with locked(own):
        pass


def test_new_files_come_with_the_manifest_and_old_ones_go(own, tmp_path):
    bundle = Bundle.open(own)
    info = FileInfo(hashlib.sha256(b"new").hexdigest(), 3)
    more = replace(bundle.manifest, files=bundle.manifest.files | {"more/new.txt": info})
    assert write(bundle, None, more, {"more/new.txt": b"new"}) == own
    assert (Bundle.open(own).root / "more/new.txt").read_bytes() == b"new"
    copy = write(Bundle.open(own), tmp_path / "copy.kanoclip", more, {"more/new.txt": b"new"})
    assert Bundle.open(copy).manifest == replace(more, name="copy")
    write(Bundle.open(own), None, bundle.manifest, {})
    assert not (own / "more/new.txt").exists() and Bundle.open(own).manifest == bundle.manifest
