import dataclasses

import numpy as np
import pytest

from kanoclip.runtime.errors import TrainingError
from kanoclip.train.nano.scenes.defects import DEFECTS
from kanoclip.train.nano.scenes.materials import MATERIALS
from kanoclip.train.nano.scenes.objects import THINGS
from kanoclip.train.nano.scenes.photos import OBJECT, Photos
from kanoclip.train.nano.scenes.scene import MISSING, TRANSPLANT, Recipe, _damage, _transplant, generate

SMALL = Recipe(size=96)


@pytest.mark.parametrize("name", MATERIALS)
def test_every_material_is_an_image_that_differs_from_draw_to_draw(name):
    one, other = (MATERIALS[name].paint(np.random.default_rng(seed), 96) for seed in (1, 2))
    for paint in (one, other):
        assert paint.shape == (96, 96, 3) and paint.dtype == np.float32 and np.isfinite(paint).all()
        assert -0.6 < paint.mean() < 1.6
    assert np.abs(one - other).mean() > 0.005


@pytest.mark.parametrize("name", THINGS)
def test_every_thing_lies_inside_the_image(name):
    for seed in range(4):
        look, shape = THINGS[name].paint(np.random.default_rng(seed), 96)
        assert look.shape == (96, 96, 3) and np.isfinite(look).all()
        assert shape.shape == (96, 96) and shape.min() >= 0 and shape.max() <= 1
        assert 0.02 < (shape > 0.5).mean() < 0.85
        border = np.concatenate([shape[0], shape[-1], shape[:, 0], shape[:, -1]])
        assert (border > 0.5).mean() < 0.3


@pytest.mark.parametrize("name", DEFECTS)
def test_every_defect_changes_what_its_mask_says(name):
    """Inside its mask the image changes; far from it, and outside the region, it stays as it was."""
    seen = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        image = MATERIALS["wood" if seed % 2 else "cast metal"].paint(rng, 128)
        region = np.zeros((128, 128), np.float32)
        region[20:100, 20:100] = 1
        changed, strength = DEFECTS[name].apply(rng, image, region)
        assert changed.shape == image.shape and np.isfinite(changed).all()
        assert strength.shape == region.shape and strength.min() >= 0 and strength.max() <= 1
        assert not strength[region == 0].any()
        difference = np.abs(changed - image).max(axis=2)
        if (strength > 0.35).sum() > 5:
            seen += 1
            assert difference[strength > 0.35].mean() > 3 * difference[strength == 0].mean()
            assert difference[strength > 0.35].mean() > 0.01
    assert seen >= 4


def test_the_same_number_is_the_same_image():
    for index in range(6):
        one, two = generate(SMALL, 3, index), generate(SMALL, 3, index)
        assert np.array_equal(one.image, two.image) and np.array_equal(one.mask, two.mask)
        assert one.caption == two.caption
        assert not np.array_equal(one.image, generate(SMALL, 4, index).image)
        assert not np.array_equal(one.image, generate(SMALL, 3, index + 100).image)


def test_labels_masks_and_captions_agree():
    scenes = [generate(SMALL, 0, index) for index in range(120)]
    for scene in scenes:
        assert scene.image.shape == (96, 96, 3) and scene.image.dtype == np.uint8
        assert scene.mask.shape == (96, 96) and scene.mask.dtype == bool
        assert scene.mask.any() == (scene.defect != "good")
        assert scene.words in scene.caption
    share = np.mean([scene.defect != "good" for scene in scenes])
    assert 0.4 < share < 0.8
    assert len({scene.subject for scene in scenes}) > 20
    assert len({scene.defect for scene in scenes}) > 12


def test_a_recipe_keeps_to_what_it_names():
    recipe = dataclasses.replace(
        SMALL, materials=("wood",), things=("nut",), defects=("scratch", MISSING), anomalous=1.0
    )
    scenes = [generate(recipe, 0, index) for index in range(60)]
    assert {scene.subject for scene in scenes} == {"wood", "nut"}
    assert {scene.defect for scene in scenes} == {"scratch", MISSING}
    broken = [scene.subject for scene in scenes if scene.defect == MISSING]
    assert 0 < broken.count("wood") < broken.count("nut"), "a surface has a border to break off only where it ends"


@pytest.mark.parametrize("size", [64, 160])
def test_any_size(size):
    scene = generate(dataclasses.replace(SMALL, size=size), 0, 1)
    assert scene.image.shape == (size, size, 3)


def test_images_too_small_to_show_anything():
    with pytest.raises(TrainingError, match="64 is the least"):
        Recipe(size=63)


def test_whole_photographs_are_as_frequent_as_the_recipe_says(photo_folder):
    photos = Photos.from_folder(photo_folder)
    recipe = dataclasses.replace(SMALL, size=64, whole=0.5, photographed=0.0)
    scenes = [generate(recipe, 1, index, photos) for index in range(80)]
    whole = [scene for scene in scenes if scene.subject == OBJECT]
    assert 0.3 < len(whole) / len(scenes) < 0.7
    assert not any(scene.defect == MISSING for scene in whole), "a photograph has no border to break off"
    assert 0.35 < np.mean([scene.defect != "good" for scene in whole]) < 0.85
    assert all(scene.mask.any() == (scene.defect != "good") for scene in whole)
    assert {scene.words for scene in whole} == {OBJECT} and all(OBJECT in scene.caption for scene in whole)
    assert not any(generate(recipe, 1, index).subject == OBJECT for index in range(20)), (
        "there are none without a folder"
    )


def test_whole_photographs_where_a_missing_part_is_the_only_defect_are_good(photo_folder):
    photos = Photos.from_folder(photo_folder)
    recipe = dataclasses.replace(SMALL, size=64, whole=1.0, defects=(MISSING,), anomalous=1.0)
    assert {generate(recipe, 0, index, photos).defect for index in range(5)} == {"good"}


@pytest.mark.parametrize("photographed", [False, True])
def test_a_transplant_is_another_surface_inside_its_mask_and_nothing_outside(photo_folder, photographed):
    photos = Photos.from_folder(photo_folder) if photographed else None
    image = MATERIALS["wood"].paint(np.random.default_rng(0), 96)
    region = np.zeros((96, 96), np.float32)
    region[10:80, 10:80] = 1
    seen = 0
    for seed in range(10):
        changed, strength = _transplant(np.random.default_rng(seed), image, region, photos)
        assert changed.shape == image.shape and changed.dtype == np.float32 and np.isfinite(changed).all()
        assert strength.shape == region.shape and strength.min() >= 0 and strength.max() <= 1
        assert not strength[region == 0].any() and np.array_equal(changed[strength == 0], image[strength == 0])
        if (strength > 0.35).sum() > 10:
            seen += 1
            assert np.abs(changed - image).max(axis=2)[strength > 0.35].mean() > 0.03
    assert seen >= 6


def test_a_transplant_is_called_a_foreign_texture():
    recipe = dataclasses.replace(SMALL, size=64, materials=("wood",), things=(), defects=(TRANSPLANT,), anomalous=1.0)
    scenes = [generate(recipe, 0, index) for index in range(40)]
    assert {scene.defect for scene in scenes} == {TRANSPLANT}
    named = [scene for scene in scenes if "a foreign texture in it" in scene.caption]
    assert 5 < len(named) < 40, "the others say that something is wrong"


def test_good_images_have_no_damage():
    image = MATERIALS["wood"].paint(np.random.default_rng(0), 64)
    changed, strength = _damage(np.random.default_rng(0), "good", image, np.ones((64, 64), np.float32), None)
    assert changed is image and not strength.any()
