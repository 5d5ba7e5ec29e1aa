"""Masks that are likely none are named, and a mask in the alpha channel is read as one."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from kanoclip.runtime.cli.main import invoke
from kanoclip.train.data.check import inspect
from kanoclip.train.data.masks import decode_mask
from kanoclip.train.data.registry import open_dataset

DATA = Path(__file__).parent / "data"


def faults(name, root, deep=True):
    report = inspect(open_dataset(name, root, split="all"), deep=deep, advance=lambda: None)
    return {problem.path.relative_to(root).as_posix(): problem.reason for problem in report.problems}


def test_check_names_them(capsys):
    assert invoke("kanoclip-data", "data", ["check", str(DATA), "--deep", "--json"]) == 1  # a mask has no image
    found = {Path(one["path"]).name: one["reason"] for one in json.loads(capsys.readouterr().out)["problems"]}
    assert found["3.png"].startswith("mask in transparency alone")
    assert found["6.png"] == "mask of nearly all of the image, 95%: are anomalous and normal swapped?"
    assert found.keys() == {"3.png", "6.png", "5.png", "5_gt.png"}


def test_what_is_in_alpha_is_the_mask():
    found = decode_mask(DATA / "masks" / "3.png")
    assert found.in_alpha and 0.005 < found.pixels.mean() < 0.2
    assert found.suspicion is None


def test_which_masks_are_likely_swapped(tmp_path):
    for share, inverted in ((0.02, False), (0.3, False), (0.02, True), (0.3, True)):
        pixels = np.zeros((100, 100), np.uint8)
        side = round(100 * share**0.5)
        pixels[20 : 20 + side, 20 : 20 + side] = 255
        cv2.imwrite(str(tmp_path / "m.png"), 255 - pixels if inverted else pixels)
        assert (decode_mask(tmp_path / "m.png").suspicion is not None) == inverted
    cv2.imwrite(str(tmp_path / "m.png"), np.full((100, 100), 255, np.uint8))
    assert "100%" in decode_mask(tmp_path / "m.png").suspicion


def test_colours_under_transparent_pixels_are_no_anomaly(tmp_path):
    drawn = np.full((40, 40, 4), (0, 0, 255, 0), np.uint8)
    drawn[10:20, 10:20] = (0, 0, 255, 255)
    drawn[0, 0] = (9, 9, 9, 255)  # two colours: not in alpha alone
    cv2.imwrite(str(tmp_path / "m.png"), drawn)
    found = decode_mask(tmp_path / "m.png")
    assert not found.in_alpha and found.pixels.sum() == 101


def test_the_folders_of_masks_of_mvtec_loco(tmp_path):
    root = tmp_path / "breakfast_box"
    for folder in ("train/good", "test/good", "test/logical_anomalies", "ground_truth/logical_anomalies/000"):
        (root / folder).mkdir(parents=True)
    image = np.full((32, 32, 3), 90, np.uint8)
    for place in ("train/good/000", "test/good/000", "test/logical_anomalies/000", "test/logical_anomalies/001"):
        cv2.imwrite(str(root / f"{place}.png"), image)
    for number, rows in enumerate((slice(0, 4), slice(10, 12))):
        mask = np.zeros((32, 32), np.uint8)
        mask[rows] = 254 - number  # the value names the kind of defect
        cv2.imwrite(str(root / f"ground_truth/logical_anomalies/000/00{number}.png"), mask)
    samples = {sample.image.name: sample for sample in open_dataset("mvtec", tmp_path).categories[0].samples}
    folder = next(one.mask for one in samples.values() if one.mask is not None)
    assert decode_mask(folder).pixels.any(1).nonzero()[0].tolist() == [0, 1, 2, 3, 10, 11]
    assert faults("mvtec", tmp_path) == {"breakfast_box/test/logical_anomalies/001.png": "no mask"}
    (folder / "002.png").write_bytes(b"x")
    assert "unreadable mask: 002.png" in faults("mvtec", tmp_path)["breakfast_box/ground_truth/logical_anomalies/000"]
