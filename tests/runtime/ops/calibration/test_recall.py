"""Recall by folder at thresholds that good frames give."""

from __future__ import annotations

import numpy as np
import pytest

from kanoclip.runtime.ops.calibration.recall import ALL, RATES, curve, recall_table

GOOD = np.linspace(0.0, 0.495, 100)


def test_by_folder():
    bad = {"crack": np.array([0.9, 0.9, 0.48]), "stain": np.array([0.1])}
    table = recall_table(GOOD, bad)
    assert table.rates == RATES and [f.name for f in table.folders] == ["crack", "stain", ALL]
    crack, stain, every = table.folders
    assert crack.shares[0] == pytest.approx(2 / 3) and crack.shares[3] == 1 and stain.shares == (0, 0, 0, 0)
    assert every.frames == 4 and table.at(0.10) == 0.75
    assert all(low <= share <= high for low, share, high in zip(crack.low, crack.shares, crack.high, strict=True))
    # Of good frames like these at most so many are above: conformal.
    assert [(threshold < GOOD).mean() <= rate for threshold, rate in zip(table.thresholds, RATES, strict=True)] == [
        True
    ] * 4


def test_too_few_good_frames_keep_what_they_can():
    table = recall_table(np.array([0.1, 0.2, 0.3]), {"x": np.array([0.25, 0.35])})
    assert table.rates == pytest.approx((0.25,) * 4) and table.thresholds == (0.3,) * 4
    assert table.at(0.05) == 0.5


def test_a_single_good_frame():
    assert recall_table(np.array([0.1]), {"x": np.array([0.25])}).at(0.01) == 1


def test_scores_of_one_are_no_error():
    assert recall_table(np.ones(30), {"x": np.ones(2)}).at(0.05) == 0


def test_the_curve():
    false, true = curve(np.array([0.1, 0.4]), np.array([0.3, 0.9]))
    assert false.tolist() == [0, 0, 0.5, 0.5, 1] and true.tolist() == [0, 0.5, 0.5, 1, 1]
