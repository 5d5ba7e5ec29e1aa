"""The MVTec tree and what MPDD, BTAD, converted VisA and DAGM change about it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kanoclip.runtime.errors import DataError
from kanoclip.train.data.registry import open_dataset


def test_categories_and_pairs(tmp_path, draw, summary):
    draw.category(tmp_path / "metal_nut", good=1, bad=2, defect="bent")
    draw.category(tmp_path / "bottle", good=1, bad=0)
    dataset = open_dataset("mvtec", tmp_path, split="all")
    assert summary(dataset) == {
        "bottle": [
            ("bottle/test/good/000.png", False, None, "good", "test"),
            ("bottle/train/good/000.png", False, None, "good", "train"),
        ],
        "metal_nut": [
            ("metal_nut/test/bent/000.png", True, "metal_nut/ground_truth/bent/000_mask.png", "bent", "test"),
            ("metal_nut/test/bent/001.png", True, "metal_nut/ground_truth/bent/001_mask.png", "bent", "test"),
            ("metal_nut/test/good/000.png", False, None, "good", "test"),
            ("metal_nut/train/good/000.png", False, None, "good", "train"),
        ],
    }
    assert [category.class_name for category in dataset.categories] == ["bottle", "metal nut"]
    assert dataset.pixel_labels and dataset.root == tmp_path and dataset.name == "mvtec"


def test_root_may_be_one_category(tmp_path, draw, monkeypatch):
    folder = draw.category(tmp_path / "gear_wheel")
    for root in (folder, folder / ".." / "gear_wheel"):
        (category,) = open_dataset("mvtec", root).categories
        assert (category.name, category.class_name, len(category.samples)) == ("gear_wheel", "gear wheel", 5)
    monkeypatch.chdir(folder)
    assert open_dataset("mvtec", Path(".")).categories[0].name == "gear_wheel"


def test_the_same_name_in_two_defects_is_two_images(tmp_path, draw):
    for defect in ("crack", "hole"):
        draw.category(tmp_path / "tile", defect=defect)
    samples = [sample for sample in open_dataset("mvtec", tmp_path).categories[0].samples if sample.anomalous]
    assert len(samples) == 6
    assert all(sample.mask.parts[-2] == sample.image.parts[-2] == sample.defect for sample in samples)


def test_btad_has_ok_and_ko_and_masks_of_other_formats(tmp_path, draw, summary):
    for name, image, mask in (("01", "bmp", "png"), ("02", "png", "png"), ("03", "bmp", "bmp")):
        draw.image(tmp_path / name / "train" / "ok" / f"0000.{image}")
        draw.image(tmp_path / name / "test" / "ok" / f"0000.{image}")
        draw.image(tmp_path / name / "test" / "ko" / f"0001.{image}")
        draw.mask(tmp_path / name / "ground_truth" / "ko" / f"0001.{mask}")
        draw.mask(tmp_path / name / "ground_truth" / "ok" / f"0000.{mask}", value=0)
    dataset = open_dataset("btad", tmp_path)
    assert dataset.problems == ()
    assert [category.class_name for category in dataset.categories] == [
        "round metal part",
        "wooden surface",
        "industrial panel",
    ]
    assert summary(dataset)["01"] == [
        ("01/test/ko/0001.bmp", True, "01/ground_truth/ko/0001.png", "ko", "test"),
        ("01/test/ok/0000.bmp", False, None, "good", "test"),
    ]
    assert summary(dataset)["03"][0][2] == "03/ground_truth/ko/0001.bmp"


def test_converted_visa_and_dagm(tmp_path, draw):
    for name, mask in (("pcb1", "000.png"), ("Class3", "000_label.PNG")):
        draw.image(tmp_path / "1cls" / name / "test" / "good" / "010.JPG")
        draw.image(tmp_path / "1cls" / name / "test" / "bad" / "000.JPG")
        draw.mask(tmp_path / "1cls" / name / "ground_truth" / "bad" / mask)
    for dataset, name in (("visa", "pcb1"), ("dagm", "Class3")):
        (category,) = open_dataset(dataset, tmp_path / "1cls").categories
        assert category.name == name and [sample.mask is None for sample in category.samples] == [False, True]
        assert open_dataset(dataset, tmp_path).categories == (category,)  # the folder around it is found


def test_mpdd_takes_its_own_categories_only(tmp_path, draw):
    draw.category(tmp_path / "tubes")
    draw.category(tmp_path / "something_else")
    assert [category.name for category in open_dataset("mpdd", tmp_path).categories] == ["tubes"]


def test_what_systems_leave_behind_is_no_image(tmp_path, draw):
    folder = draw.category(tmp_path / "nut", good=1, bad=1)
    good = folder / "test" / "good"
    for name in ("Thumbs.db", ".DS_Store", "._000.png", "notes.txt", ".hidden.png"):
        (good / name).write_bytes(b"x")
    (good / "folder.png").mkdir()
    draw.category(tmp_path / "__MACOSX")
    draw.category(tmp_path / ".cache")
    (category,) = open_dataset("mvtec", tmp_path).categories
    assert len(category.samples) == 2


def test_extensions_and_folders_in_any_case(tmp_path, draw):
    for suffix in ("PNG", "JPG", "jpeg", "bmp", "TIF", "tiff", "webp"):
        draw.image(tmp_path / "nut" / "Test" / "Good" / f"{suffix}_.{suffix}")
        draw.image(tmp_path / "nut" / "Test" / "Crack" / f"{suffix}_.{suffix}")
        draw.mask(tmp_path / "nut" / "Ground_Truth" / "crack" / f"{suffix}__MASK.png")
    dataset = open_dataset("mvtec", tmp_path)
    samples = dataset.categories[0].samples
    assert len(samples) == 14 and sum(sample.mask is not None for sample in samples) == 7
    assert dataset.problems == ()


def test_links_to_another_disk_are_followed(tmp_path, draw, problems):
    elsewhere = draw.category(tmp_path / "elsewhere" / "nut")
    root = tmp_path / "root"
    root.mkdir()
    (root / "nut").symlink_to(elsewhere, target_is_directory=True)
    dataset = open_dataset("mvtec", root)
    assert len(dataset.categories[0].samples) == 5 and problems(dataset) == []


def test_missing_and_unpaired_masks(tmp_path, draw, problems):
    folder = draw.category(tmp_path / "nut", bad=3)
    (folder / "ground_truth" / "crack" / "001_mask.png").unlink()
    draw.mask(folder / "ground_truth" / "crack" / "009_mask.png")
    draw.mask(folder / "ground_truth" / "scratch" / "000_mask.png")
    draw.mask(folder / "ground_truth" / "lost.png")
    dataset = open_dataset("mvtec", tmp_path)
    assert problems(dataset) == [
        ("nut/test/crack/001.png", "no mask"),
        ("nut/ground_truth/crack/009_mask.png", "mask without an image"),
        ("nut/ground_truth/scratch/000_mask.png", "mask without an image"),
        ("nut/ground_truth/lost.png", "mask without an image"),
    ]
    assert [sample.mask is None for sample in dataset.categories[0].samples if sample.anomalous] == [False, True, False]


def test_two_images_do_not_share_a_mask(tmp_path, draw, problems):
    folder = draw.category(tmp_path / "nut", bad=1)
    draw.image(folder / "test" / "crack" / "000.jpg")
    dataset = open_dataset("mvtec", tmp_path)
    assert [sample.mask is None for sample in dataset.categories[0].samples if sample.anomalous] == [False, True]
    assert problems(dataset) == [("nut/test/crack/000.png", "no mask")]


def test_a_second_mask_is_reported(tmp_path, draw, problems):
    folder = draw.category(tmp_path / "nut", bad=1)
    draw.mask(folder / "ground_truth" / "crack" / "000.png")
    dataset = open_dataset("mvtec", tmp_path)
    assert problems(dataset) == [("nut/ground_truth/crack/000.png", "mask without an image")]


def test_no_masks_at_all_is_an_image_level_dataset(tmp_path, draw):
    for name in ("cell", "wafer"):
        draw.image(tmp_path / name / "test" / "good" / "0.png")
        draw.image(tmp_path / name / "test" / "bad" / "0.png")
    dataset = open_dataset("mvtec", tmp_path)
    assert not dataset.pixel_labels and dataset.problems == ()
    draw.category(tmp_path / "nut")
    mixed = open_dataset("mvtec", tmp_path)
    assert mixed.pixel_labels
    assert [(problem.category, problem.reason) for problem in mixed.problems] == [
        ("cell", "no masks: this folder is missing"),
        ("wafer", "no masks: this folder is missing"),
    ]


def test_one_kind_alone_is_loaded(tmp_path, draw):
    draw.category(tmp_path / "nut", good=0, bad=2)
    draw.category(tmp_path / "bolt", good=2, bad=0)
    bolt, nut = open_dataset("mvtec", tmp_path).categories
    assert {sample.anomalous for sample in bolt.samples} == {False}
    assert {sample.anomalous for sample in nut.samples} == {True}


def test_classes_of_a_classifier_are_no_defects(tmp_path, draw):
    """test/cat and test/dog, with nothing that says which is normal."""
    for name in ("cat", "dog"):
        draw.image(tmp_path / "pets" / "test" / name / "0.png")
        draw.image(tmp_path / "pets" / "train" / name / "0.png")
    with pytest.raises(DataError, match="not laid out as mvtec"):
        open_dataset("mvtec", tmp_path)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, draw, monkeypatch):
    folder = draw.category(tmp_path / "nut") / "test" / "crack"
    scan = os.scandir

    def refuse(path):
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"crack: this folder cannot be listed \(Permission denied\)"):
        open_dataset("mvtec", tmp_path)
