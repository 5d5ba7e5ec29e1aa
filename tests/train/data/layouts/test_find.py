"""Which dataset a folder is, and where below it."""

from __future__ import annotations

import pytest

from kanoclip.runtime.errors import DataError
from kanoclip.train.data.registry import dataset_names, open_dataset


def bmad(draw, root):
    for kind in ("good", "Ungood"):
        draw.image(root / "test" / kind / "img" / "0.png")
    draw.mask(root / "test" / "Ungood" / "label" / "0.png")


def test_own_tree_is_mvtec(tmp_path, draw):
    draw.category(tmp_path / "data" / "nut")
    assert dataset_names(tmp_path / "data") == dataset_names(tmp_path / "data" / "nut") == ["mvtec"]


@pytest.mark.parametrize(
    ("category", "name"), [("candle", "visa"), ("tubes", "mpdd"), ("02", "btad"), ("Class4", "dagm")]
)
def test_categories_tell_the_dataset(tmp_path, draw, category, name):
    draw.category(tmp_path / category)
    assert dataset_names(tmp_path) == [name]


@pytest.mark.parametrize(
    ("folder", "name"), [("KolektorSDD", "sdd"), ("BrainMRI", "brainmri"), ("Br35H", "br35h"), ("HeadCT", "headct")]
)
def test_the_folder_s_name_tells_what_a_lone_category_is(tmp_path, draw, folder, name):
    draw.category(tmp_path / folder / "x")
    assert dataset_names(tmp_path / folder) == [name]


def test_yes_and_no_may_be_two_datasets(tmp_path, draw):
    for folder in ("pictures", "Br35H", "brain_tumor_dataset"):
        for kind in ("yes", "no"):
            draw.image(tmp_path / folder / kind / "0.png")
    assert dataset_names(tmp_path / "pictures") == ["brainmri", "br35h"]
    assert dataset_names(tmp_path / "Br35H") == ["br35h"]
    assert dataset_names(tmp_path / "brain_tumor_dataset") == ["brainmri"]


def test_bmad_is_told_by_name_alone(tmp_path, draw):
    bmad(draw, tmp_path / "x")
    bmad(draw, tmp_path / "Liver_AD")
    assert dataset_names(tmp_path / "x") == ["brainmri", "liverct", "resc"]
    assert dataset_names(tmp_path / "Liver_AD") == ["liverct"]
    assert len(open_dataset("liverct", tmp_path).categories[0].samples) == 2


def test_the_root_counts_for_more_than_what_lies_below(tmp_path, draw):
    draw.image(tmp_path / "normal" / "0.png")
    draw.image(tmp_path / "abnormal" / "0.png")
    draw.category(tmp_path / "old" / "visa" / "candle")
    assert dataset_names(tmp_path) == ["folder"]


def test_several_folders_that_could_be_it_are_named(tmp_path, draw):
    for name in ("a", "b"):
        draw.category(tmp_path / name / "candle")
    with pytest.raises(DataError, match="several folders") as caught:
        open_dataset("visa", tmp_path)
    assert str(tmp_path / "a") in str(caught.value) and str(tmp_path / "b") in str(caught.value)
    (tmp_path / "b").rename(tmp_path / "VisA_pytorch")
    dataset = open_dataset("visa", tmp_path)
    assert dataset.root == tmp_path and "VisA_pytorch" in dataset.categories[0].samples[0].image.parts


def test_a_lone_category_below_the_root_is_not_taken_for_anything(tmp_path, draw):
    draw.category(tmp_path / "examples" / "hazelnut")
    with pytest.raises(DataError, match="not laid out as headct"):
        open_dataset("headct", tmp_path)


def test_three_levels_down_is_too_far(tmp_path, draw):
    draw.category(tmp_path / "1" / "2" / "3" / "candle")
    assert dataset_names(tmp_path) == []
    assert dataset_names(tmp_path / "1") == ["visa"]


def test_a_crowded_level_is_not_searched(tmp_path, draw):
    for number in range(201):
        (tmp_path / f"{number:03}").mkdir()
    draw.category(tmp_path / "000" / "candle")
    assert dataset_names(tmp_path) == []
