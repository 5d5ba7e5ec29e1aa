from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from kanoclip.runtime.errors import SourceError, TrainingError
from kanoclip.train.nano.scenes.photos import Photos, _is_held_out
from kanoclip.train.nano.scenes.scene import Recipe, generate


def rng(seed=0):
    return np.random.default_rng(seed)


def names(photos, folder):
    return {path.relative_to(folder).as_posix() for path in photos.paths}


def test_a_folder_that_is_missing_empty_or_no_folder(tmp_path):
    with pytest.raises(TrainingError, match=r"no folder of photographs .*none: name one that has images"):
        Photos.from_folder(tmp_path / "none")
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(TrainingError, match="no folder of photographs"):
        Photos.from_folder(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="empty: no images in this folder"):
        Photos.from_folder(tmp_path / "empty")


def test_a_folder_of_broken_images_alone_names_the_first_and_why(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.jpg").write_bytes(b"no image")
    with pytest.raises(TrainingError, match=r"no usable photograph among \d .*\.jpg: .*name a folder") as caught:
        Photos.from_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_broken_and_tiny_images_are_left_out_with_the_reason(tmp_path, photo_folder, write_photo):
    folder = tmp_path / "photos"
    shutil.copytree(photo_folder, folder)
    whole = names(Photos.from_folder(folder), folder)
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    (folder / "empty.png").write_bytes(b"")
    write_photo(folder / "flat.png", 1, 95, 400)
    write_photo(folder / "just.png", 1, 96, 96)
    photos = Photos(sorted(folder.rglob("*.*")))
    reasons = {path.name: reason for path, reason in photos.left_out}
    assert set(reasons) == {"cut.jpg", "empty.png", "flat.png"}
    assert reasons["flat.png"] == "its shorter side has less than 96 pixels"
    assert all(reason and "\n" not in reason for reason in reasons.values())
    assert names(photos, folder) == {*whole, *names(Photos.from_folder(folder, held_out=True), folder), "just.png"}


def test_the_held_out_part_is_disjoint_whole_and_decided_by_the_path_below_the_folder(photo_folder, tmp_path):
    trained, kept = Photos.from_folder(photo_folder), Photos.from_folder(photo_folder, held_out=True)
    assert not set(trained.paths) & set(kept.paths)
    assert len(trained.paths) + len(kept.paths) == 30 and 0 < len(kept.paths) < 10
    moved = tmp_path / "elsewhere" / "photos"
    shutil.copytree(photo_folder, moved)
    (moved / "a" / "01.png").unlink()
    for before, held_out in ((trained, False), (kept, True)):
        after = names(Photos.from_folder(moved, held_out=held_out), moved)
        assert after == names(before, photo_folder) - {"a/01.png"}, "others stay where they were"


def test_about_one_in_eight_is_held_out():
    share = np.mean([_is_held_out(Path(f"set{i % 7}/{i:05}.jpg")) for i in range(4000)])
    assert share == pytest.approx(1 / 8, abs=0.02)


def test_a_folder_too_small_to_hold_any_out_says_so(tmp_path, photo_folder):
    trained = Photos.from_folder(photo_folder).paths[0]
    (tmp_path / trained.parent.name).mkdir()
    shutil.copy(trained, tmp_path / trained.parent.name)
    assert len(Photos.from_folder(tmp_path).paths) == 1
    with pytest.raises(TrainingError, match=f"{tmp_path}: 1 images, and none falls into the part that is held out"):
        Photos.from_folder(tmp_path, held_out=True)


@pytest.mark.parametrize("way", ["paint", "whole"])
@pytest.mark.parametrize("size", [64, 160])
def test_cuts_have_the_models_shape_and_range_and_repeat_by_seed(photo_folder, way, size):
    photos = Photos.from_folder(photo_folder)
    draw = getattr(photos, way)
    drawn = [draw(rng(seed), size) for seed in range(12)]
    for paint in drawn:
        assert paint.shape == (size, size, 3) and paint.dtype == np.float32
        assert 0 <= paint.min() < paint.max() <= 1
    assert np.array_equal(drawn[3], draw(rng(3), size))
    assert len({paint.tobytes() for paint in drawn}) == 12


def test_a_whole_photograph_is_one_of_them_and_now_and_then_uncut(photo_folder):
    photos = Photos.from_folder(photo_folder)
    known = []
    for path in photos.paths:
        stretched = cv2.resize(cv2.imread(str(path)), (64, 64), interpolation=cv2.INTER_AREA) / 255
        known += [stretched, stretched[:, ::-1]]
    nearest = [min(np.abs(one - photos.whole(rng(seed), 64)).mean() for one in known) for seed in range(24)]
    assert 4 < sum(distance < 0.03 for distance in nearest) < 20


def test_a_photograph_that_vanishes_is_named(tmp_path, write_photo):
    write_photo(tmp_path / "p.png", 0)
    photos = Photos([tmp_path / "p.png"])
    (tmp_path / "p.png").unlink()
    with pytest.raises(TrainingError, match=r"p\.png could be read at the start and cannot now"):
        photos.paint(rng(), 64)


def test_grey_transparent_and_turned_photographs_are_colour_images(tmp_path):
    noise = rng().integers(0, 256, (120, 100), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "grey.png"), noise)
    cv2.imwrite(str(tmp_path / "alpha.png"), np.dstack([noise] * 4))
    for name in ("grey.png", "alpha.png"):
        photos = Photos([tmp_path / name])
        assert photos.whole(rng(1), 64).shape == photos.paint(rng(1), 64).shape == (64, 64, 3)


def test_scenes_with_photographs_repeat_and_keep_their_masks(photo_folder):
    photos = Photos.from_folder(photo_folder)
    recipe = Recipe(size=96, things=(), photographed=1.0, whole=0.3)
    scenes = [generate(recipe, 0, index, photos) for index in range(20)]
    assert {scene.words for scene in scenes} == {"surface", "object"}
    assert all(scene.mask.any() == (scene.defect != "good") for scene in scenes)
    assert np.array_equal(scenes[3].image, generate(recipe, 0, 3, photos).image)
