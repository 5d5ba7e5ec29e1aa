"""A bundle is verified, file by file, before anything in it is used."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from kanoclip.runtime.bundle import bundle as bundle_module
from kanoclip.runtime.bundle.bundle import BLOCK, Bundle, find_bundle, sha256_of, shipped_bundle
from kanoclip.runtime.bundle.manifest.parts import FileInfo
from kanoclip.runtime.bundle.manifest.reading import read_manifest
from kanoclip.runtime.errors import BundleError


@pytest.fixture
def copy(toy_bundle, tmp_path):
    return Path(shutil.copytree(toy_bundle, tmp_path / "copy.kanoclip"))


def refused(path, *words):
    with pytest.raises(BundleError) as caught:
        Bundle.open(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for word in words:
        assert str(word) in message, message


def add_file(folder, name, data, *, write=True):
    """Lists a file in the manifest, and writes it."""
    path = folder / "manifest.json"
    manifest = read_manifest(path.read_text())
    info = FileInfo(hashlib.sha256(data).hexdigest(), len(data))
    path.write_text(replace(manifest, files=manifest.files | {name: info}).to_json())
    if write:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def test_a_good_bundle(toy_bundle):
    bundle = Bundle.open(str(toy_bundle))
    assert bundle.root == toy_bundle
    assert bundle.manifest.classes == ("object",)
    assert bundle.model_path == toy_bundle / "model.onnx" == bundle.file("model.onnx")
    with pytest.raises(BundleError, match=r"no file other\.plan: export"):
        bundle.file("other.plan")


def test_files_in_folders_and_unlisted_files(copy):
    add_file(copy, "engines/deep/a.plan", b"engine")
    (copy / "notes.txt").write_text("not ours")
    assert Bundle.open(copy).file("engines/deep/a.plan").read_bytes() == b"engine"
    with pytest.raises(BundleError):
        Bundle.open(copy).file("notes.txt")


@pytest.mark.parametrize("place", [0, 0.5, -1])
def test_a_flipped_bit(copy, place):
    data = bytearray((copy / "model.onnx").read_bytes())
    data[int(place * len(data)) if place >= 0 else -1] ^= 1
    (copy / "model.onnx").write_bytes(data)
    refused(copy, copy, "model.onnx is damaged", "sha256", "again")


@pytest.mark.parametrize("change", ["shorter", "longer", "empty"])
def test_another_size(copy, change):
    data = (copy / "model.onnx").read_bytes()
    other = {"shorter": data[:-1], "longer": data + b"\0", "empty": b""}[change]
    (copy / "model.onnx").write_bytes(other)
    refused(copy, f"model.onnx has {len(other)} bytes, expected {len(data)}", "again")


def test_a_missing_file(copy):
    (copy / "model.onnx").unlink()
    refused(copy, copy, "model.onnx is missing", "again")


def test_a_folder_in_place_of_a_file(copy):
    (copy / "model.onnx").unlink()
    (copy / "model.onnx").mkdir()
    refused(copy, "model.onnx is missing")


def test_every_listed_file_is_checked(copy):
    add_file(copy, "engines/a.plan", b"engine")
    (copy / "engines" / "a.plan").write_bytes(b"enginf")
    refused(copy, "engines/a.plan is damaged")


@pytest.mark.parametrize("kind", ["climbing", "absolute", "nested"])
def test_paths_that_leave_the_bundle(copy, tmp_path, kind):
    outside = tmp_path / "secret"
    outside.write_bytes(b"secret")
    name = {"climbing": "../secret", "absolute": str(outside), "nested": "a/../../secret"}[kind]
    path = copy / "manifest.json"
    value = json.loads(path.read_text())
    value["files"][name] = {"sha256": hashlib.sha256(b"secret").hexdigest(), "size": 6}
    path.write_text(json.dumps(value))
    refused(copy, name, "do not use it")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_link_that_leaves_the_bundle(copy, tmp_path, kind):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.plan").write_bytes(b"engine")
    name = "a.plan" if kind == "file" else "engines/a.plan"
    add_file(copy, name, b"engine", write=False)
    if kind == "file":
        (copy / "a.plan").symlink_to(outside / "a.plan")
    else:
        (copy / "engines").symlink_to(outside)
    refused(copy, f"{name} is a link that leaves the bundle")


def test_a_manifest_that_is_a_link_out_of_the_bundle(copy, tmp_path):
    (copy / "manifest.json").rename(tmp_path / "manifest.json")
    (copy / "manifest.json").symlink_to(tmp_path / "manifest.json")
    refused(copy, copy, "manifest.json is a link that leaves the bundle")


def test_links_that_stay_inside_are_fine(copy, tmp_path):
    add_file(copy, "a.plan", b"engine", write=False)
    (copy / "b.plan").write_bytes(b"engine")
    (copy / "a.plan").symlink_to("b.plan")
    (tmp_path / "link.kanoclip").symlink_to(copy)
    assert Bundle.open(tmp_path / "link.kanoclip").file("a.plan").read_bytes() == b"engine"


def test_a_ring_of_links(copy):
    add_file(copy, "a.plan", b"engine", write=False)
    (copy / "a.plan").symlink_to("b.plan")
    (copy / "b.plan").symlink_to("a.plan")
    refused(copy, copy)


def test_a_name_too_long_for_the_file_system(copy, tmp_path):
    add_file(copy, "n" * 300, b"engine", write=False)
    refused(copy, copy)
    refused(tmp_path / ("n" * 300), "nnn")


def test_what_is_no_bundle(tmp_path, copy):
    refused(tmp_path / "none.kanoclip", "no bundle", tmp_path / "none.kanoclip", "kanoclip-export", "--bundle")
    refused(copy / "model.onnx", "model.onnx is not a folder")
    refused(tmp_path, f"{tmp_path} holds no manifest.json")
    (tmp_path / "odd.kanoclip" / "manifest.json").mkdir(parents=True)
    refused(tmp_path / "odd.kanoclip", "holds no manifest.json")


def test_bad_manifests_name_the_bundle(copy):
    path = copy / "manifest.json"
    text = path.read_text()
    path.write_text("{")
    refused(copy, f"{copy}: manifest.json is not JSON")
    path.write_bytes(b"\xff\xfe" + text.encode())
    refused(copy, copy, "cannot be read")
    path.write_text(text.replace('"precision"', '"decision"'))
    refused(copy, copy, "no field 'precision'")


def test_a_huge_manifest_is_not_read(copy, monkeypatch):
    path = copy / "manifest.json"
    monkeypatch.setattr(bundle_module, "MANIFEST_LIMIT", path.stat().st_size)
    Bundle.open(copy)
    path.write_text(path.read_text() + " ")
    refused(copy, "manifest.json is over")


@pytest.mark.parametrize("size", [0, 1, BLOCK, BLOCK + 1])
def test_sha256_of_any_size(tmp_path, size):
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    (tmp_path / "file").write_bytes(data)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_find_bundle_takes_what_the_user_names(copy, tmp_path):
    assert find_bundle("some/where", tmp_path) == Path("some/where")


def test_find_bundle_takes_the_only_one_here(copy, tmp_path):
    (tmp_path / "no manifest.kanoclip").mkdir()
    (tmp_path / "a file.kanoclip").write_text("x")
    shutil.copytree(copy, tmp_path / "other.folder")
    assert find_bundle(None, tmp_path) == copy


def test_find_bundle_does_not_choose_between_several(copy, tmp_path):
    shutil.copytree(copy, tmp_path / "b.kanoclip")
    words = "b.kanoclip, copy.kanoclip): name one, or builtin for the shipped one"
    with pytest.raises(BundleError, match=re.escape(words)):
        find_bundle(None, tmp_path)


def test_find_bundle_falls_back_to_the_shipped_one(copy, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(bundle_module.resources, "files", lambda package: tmp_path)
    monkeypatch.setattr(bundle_module, "SHIPPED", "copy.kanoclip")
    assert find_bundle(None, tmp_path / "empty") == copy
    monkeypatch.setattr(bundle_module, "SHIPPED", "gone.kanoclip")
    with pytest.raises(BundleError, match="none is shipped: make one with kanoclip-export"):
        find_bundle(None, tmp_path / "empty")


def test_the_shipped_one_has_a_name_wherever_one_is_named(tmp_path):
    (tmp_path / "builtin").mkdir()
    assert find_bundle("builtin", tmp_path) == shipped_bundle()
    assert find_bundle("./builtin", tmp_path) == Path("builtin")
