"""Frames that score each other: planted anomalies are left out, and good frames are not."""

from __future__ import annotations

import numpy as np
import pytest
from references import frames, unit

from kanoclip.runtime.detect.reference.unlabelled import MOST_FRAMES, mutual_distances, robust_bound, select


def with_defects(count, bad, seed=0):
    """Frames, of which the first `bad` have a defect each, all different."""
    cells = frames(count, seed=seed)
    rng = np.random.default_rng(seed + 5)
    for number in range(bad):
        cells[number, 0, rng.choice(64, 3, replace=False)] = unit(rng.standard_normal((3, 16)))
    return cells.astype(np.float16)


@pytest.mark.parametrize("bad", [0, 1, 3, 6])
def test_planted_anomalies_are_left_out(bad):
    found = select(with_defects(30, bad), (8, 8))
    assert not found.frames[:bad].any()
    assert found.frames[bad:].mean() >= 0.9
    assert not found.cells[~found.frames].any()
    assert found.cells_left_out <= 0.03 * found.frames.sum() * 64


def test_suspicious_cells_are_left_out_where_the_frame_is_not():
    cells = with_defects(20, 0)
    cells[4, 0, 10] = unit(cells[4, 0, 10].astype(float) + 0.15 * np.random.default_rng(3).standard_normal(16))
    found = select(cells, (8, 8), most=0)
    assert found.frames.all() and not found.cells[4, 0, 10]


def test_no_more_than_allowed():
    cells = with_defects(20, 12)
    assert (~select(cells, (8, 8)).frames).sum() <= MOST_FRAMES * 20
    assert (~select(cells, (8, 8), most=0.1).frames).sum() <= 2


def test_identical_frames():
    found = select(np.repeat(frames(1), 6, 0).astype(np.float16), (8, 8))
    assert found.frames.all()


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_to_tell(count):
    found = select(frames(count).astype(np.float16), (8, 8))
    assert found.frames.all() and found.cells.all()


def test_distances_by_pairs_are_those_of_all():
    cells = frames(5, seed=2).astype(np.float16)
    points = cells[:, 0].astype(np.float32) - 0.5 * cells.astype(np.float32).mean((0, 1, 2))
    points = unit(points)
    found = mutual_distances(cells)
    for number in range(5):
        others = [1 - (points[number] @ points[other].T).max(1) for other in range(5) if other != number]
        np.testing.assert_allclose(found[number, 0], np.sort(others, 0)[:1].mean(0), atol=1e-5)  # 30 % of 4 is 1


def test_reduced_channels_keep_the_order():
    """With more channels than directions the most suspicious cell stays the most suspicious."""
    cells = frames(6, channels=200)
    cells[2, 0, 33] = unit(np.random.default_rng(0).standard_normal(200))
    found = mutual_distances(cells.astype(np.float16))
    assert np.unravel_index(found.argmax(), found.shape) == (2, 0, 33)


def test_robust_bound():
    values = np.array([1.0, 1.01, 0.99, 1.02, 0.98, 5.0], np.float32)
    assert 1.04 < robust_bound(values) < 1.2
    assert robust_bound(np.ones(5, np.float32)) == pytest.approx(1.05)
