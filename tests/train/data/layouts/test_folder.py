from __future__ import annotations

import pytest

from kanoclip.runtime.errors import DataError
from kanoclip.train.data.registry import open_dataset


def test_flat_folders(tmp_path, draw, summary):
    root = tmp_path / "gear_wheel"
    draw.image(root / "normal" / "a.jpg")
    draw.image(root / "abnormal" / "b.jpg")
    draw.image(root / "abnormal" / "c.jpg")
    draw.mask(root / "masks" / "b.png")
    draw.mask(root / "masks" / "c_mask.png")
    dataset = open_dataset("folder", root)
    assert summary(dataset) == {
        "gear_wheel": [
            ("abnormal/b.jpg", True, "masks/b.png", "abnormal", "test"),
            ("abnormal/c.jpg", True, "masks/c_mask.png", "abnormal", "test"),
            ("normal/a.jpg", False, None, "good", "test"),
        ]
    }
    assert dataset.categories[0].class_name == "gear wheel"
    assert dataset.pixel_labels and dataset.problems == ()


def test_defects_in_folders_of_their_own(tmp_path, draw, summary, problems):
    root = tmp_path / "nut"
    draw.image(root / "normal" / "0.png")
    for defect in ("crack", "hole", "stain"):
        draw.image(root / "abnormal" / defect / "0.png")
    draw.mask(root / "masks" / "crack" / "0.png")
    draw.mask(root / "masks" / "hole" / "0.png")
    draw.mask(root / "masks" / "hole" / "1.png")
    draw.mask(root / "masks" / "0.png")
    dataset = open_dataset("folder", root)
    assert [row[2:4] for row in summary(dataset)["nut"]] == [
        ("masks/crack/0.png", "crack"),
        ("masks/hole/0.png", "hole"),
        ("masks/0.png", "stain"),
        (None, "good"),
    ]
    assert problems(dataset) == [("masks/hole/1.png", "mask without an image")]


def test_without_masks_it_is_image_level(tmp_path, draw):
    draw.image(tmp_path / "normal" / "0.png")
    draw.image(tmp_path / "abnormal" / "0.png")
    dataset = open_dataset("folder", tmp_path)
    assert not dataset.pixel_labels and dataset.problems == ()


def test_a_missing_mask_is_no_empty_mask(tmp_path, draw, problems):
    draw.image(tmp_path / "normal" / "0.png")
    draw.image(tmp_path / "abnormal" / "0.png")
    (tmp_path / "masks").mkdir()
    dataset = open_dataset("folder", tmp_path)
    assert dataset.pixel_labels and dataset.categories[0].samples[0].mask is None
    assert problems(dataset) == [("abnormal/0.png", "no mask")]


def test_both_folders_are_needed(tmp_path, draw):
    draw.image(tmp_path / "normal" / "0.png")
    with pytest.raises(DataError, match="abnormal/"):
        open_dataset("folder", tmp_path)
