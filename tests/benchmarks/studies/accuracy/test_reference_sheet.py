"""The sheet of references: what is shown, and that a frame above its threshold is seen to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kanoclip.benchmarks.studies.accuracy.reference_sheet import cell, chosen, sheet
from kanoclip.runtime.types import Detection, Region, Timings
from kanoclip.train.data.types import Category, Sample


def samples(good, bad):
    return tuple(
        Sample(Path(f"{number:02}.png"), number >= good, None, "spot" if number >= good else "good", "test")
        for number in range(good + bad)
    )


def test_references_are_not_shown_and_both_kinds_are():
    part = Category("part", "part", samples(6, 8))
    shown = chosen(part, part.samples[:4], 2)
    assert [sample.image.name for sample in shown] == ["04.png", "05.png", "06.png", "10.png"]
    assert len(chosen(part, part.samples[:4], 5)) == 2 + 5


def detection(score):
    heat = np.zeros((16, 16), np.float32)
    region = Region(8, 8, 16, 16, score, 256)
    anomalous = score >= 0.5
    return Detection(score, heat, anomalous, 0.5, (region,) if anomalous else (), "object", Timings(0, 0, 0, 0, 0))


def test_what_reaches_its_threshold_is_red():
    image = np.full((64, 64, 3), 128, np.uint8)

    def reds(found):
        drawn = cell(image, found).astype(int)
        return int(((drawn[..., 2] > 180) & (drawn[..., :2] < 120).all(-1)).sum())

    assert reds(detection(0.9)) > 50 and reds(detection(0.1)) == reds(None) == 0


def test_columns_stand_side_by_side():
    cells = [cell(np.zeros((32, 32, 3), np.uint8), None)] * 3
    one, two = sheet(["a"], [cells]), sheet(["a", "b"], [cells, cells])
    assert two.shape == (one.shape[0], 2 * one.shape[1], 3) and two.dtype == np.uint8
