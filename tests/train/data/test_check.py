"""What the check finds by headers, and what only by decoding."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from kanoclip.train.data.check import inspect
from kanoclip.train.data.registry import open_dataset


def look(root, name="mvtec", deep=False):
    ticks = []
    dataset = open_dataset(name, root, split="all")
    report = inspect(dataset, deep=deep, advance=lambda: ticks.append(1))
    assert len(ticks) == sum(len(category.samples) for category in dataset.categories)
    return report


def found(report):
    return [(problem.path.name, problem.reason, problem.loses_data) for problem in report.problems]


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_dataset(tmp_path, draw, deep):
    draw.category(tmp_path / "metal_nut", good=2, bad=3)
    draw.image(tmp_path / "metal_nut" / "test" / "good" / "big.jpg", (40, 50))
    draw.image(tmp_path / "metal_nut" / "test" / "good" / "other.tif", (40, 50))
    report = look(tmp_path, deep=deep)
    (category,) = report.categories
    assert (category.train, category.test, category.good, category.anomalous, category.masks) == (1, 7, 5, 3, 3)
    assert category.defects == {"crack": 3}
    assert category.sizes == {(24, 32): 6, (40, 50): 2}
    assert report.complete and report.problems == () and report.deep is deep


@pytest.mark.parametrize("deep", [False, True])
def test_mask_of_another_size(tmp_path, draw, deep):
    """Also a transposed one."""
    folder = draw.category(tmp_path / "nut", bad=1) / "ground_truth" / "crack"
    draw.mask(folder / "000_mask.png", (32, 24))
    report = look(tmp_path, deep=deep)
    assert found(report) == [("000_mask.png", "mask of another size: 24 x 32, its image 32 x 24", True)]
    assert not report.complete


@pytest.mark.parametrize("deep", [False, True])
def test_files_that_are_no_images(tmp_path, draw, deep):
    folder = draw.category(tmp_path / "nut", good=2, bad=2)
    (folder / "test" / "good" / "000.png").write_bytes(b"not an image")
    (folder / "test" / "good" / "001.png").unlink()
    (folder / "test" / "good" / "001.png").symlink_to("gone.png")
    (folder / "ground_truth" / "crack" / "001_mask.png").write_bytes(b"")
    report = look(tmp_path, deep=deep)
    assert found(report) == [
        ("001_mask.png", "unreadable mask: the file is empty", True),
        ("000.png", "unreadable image: not an image that OpenCV can decode", True),
        ("001.png", "unreadable image: No such file or directory", True),
    ]
    assert sum(report.categories[0].sizes.values()) == 3


def test_only_decoding_finds_these(tmp_path, draw):
    folder = draw.category(tmp_path / "nut", good=1, bad=3)
    masks = folder / "ground_truth" / "crack"
    draw.mask(masks / "000_mask.png", value=0)
    cv2.imwrite(str(masks / "001_mask.png"), np.arange(24 * 32).reshape(24, 32) % 200)
    cut = folder / "test" / "crack" / "002.png"
    cut.write_bytes(cut.read_bytes()[:-20])
    assert look(tmp_path).problems == ()
    report = look(tmp_path, deep=True)
    assert found(report) == [
        ("000_mask.png", "empty mask: no pixel is anomalous", True),
        ("002.png", "unreadable image: the file is cut short", True),
        ("001_mask.png", "mask is not binary: 200 values, anomalous from half of the largest on", False),
    ]


def test_shades_alone_lose_nothing(tmp_path, draw):
    masks = draw.category(tmp_path / "nut", bad=1) / "ground_truth" / "crack"
    cv2.imwrite(str(masks / "000_mask.png"), np.arange(24 * 32).reshape(24, 32) % 200)
    report = look(tmp_path, deep=True)
    assert len(report.problems) == 1 and report.complete


def test_one_kind_alone_is_said_but_loses_nothing(tmp_path, draw):
    draw.category(tmp_path / "nut", bad=0)
    draw.image(tmp_path / "bolt" / "test" / "crack" / "0.png")
    draw.mask(tmp_path / "bolt" / "ground_truth" / "crack" / "0.png")
    report = look(tmp_path)
    assert [(problem.category, problem.reason.split(":")[0]) for problem in report.problems] == [
        ("bolt", "no normal image"),
        ("nut", "no anomalous image"),
    ]
    assert report.complete


def test_layout_s_own_problems_are_there(tmp_path, draw):
    folder = draw.category(tmp_path / "nut", bad=2)
    (folder / "ground_truth" / "crack" / "001_mask.png").unlink()
    report = look(tmp_path)
    assert found(report) == [("001.png", "no mask", True)]
    assert report.categories[0].masks == 1 and not report.complete
