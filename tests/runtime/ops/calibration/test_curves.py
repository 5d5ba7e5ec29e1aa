"""The curves: drawn for any scores, one line for each folder."""

from __future__ import annotations

import numpy as np
import pytest

from kanoclip.runtime.ops.calibration.curves import HEIGHT, MOST_FOLDERS, WIDTH, draw_curves


@pytest.mark.parametrize("good", [np.array([0.5]), np.linspace(0, 1, 50), np.full(9, 0.3)])
@pytest.mark.parametrize("bad", [np.array([0.5]), np.linspace(0.5, 1, 30), np.full(9, 0.3)])
def test_any_scores(good, bad):
    image = draw_curves(good, {"crack": bad})
    assert image.shape == (HEIGHT, WIDTH, 3) and (image == (180, 119, 31)).all(-1).any()


def test_a_perfect_line_runs_along_the_top():
    image = draw_curves(np.zeros(20), {"a": np.ones(20)})
    assert (image[38:43, 100:600] == (40, 40, 40)).all(-1).any(0).all()


def test_many_folders():
    bad = {f"defect number {n} of a long name": np.array([0.5]) for n in range(MOST_FOLDERS + 5)}
    assert draw_curves(np.array([0.1]), bad).shape == (HEIGHT, WIDTH, 3)
