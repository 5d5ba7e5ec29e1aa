"""Part and background, and where there is no telling them apart."""

from __future__ import annotations

import numpy as np
import pytest
from references import unit

from kanoclip.runtime.detect.reference.foreground import find_foreground

GRID = (16, 16)


def parts(count, seed=0, shift=0):
    """Frames of a part, 6 x 5 cells, before a ground that varies: float16 [count, 256, 8]."""
    rng = np.random.default_rng(seed)
    cells = np.zeros((count, *GRID, 8))
    cells[..., 0] = 1
    for number in range(count):
        move = rng.integers(-shift, shift + 1)
        cells[number, 5:11, 6 + move : 11 + move] = np.eye(8)[3]
    return unit(cells + 0.1 * rng.standard_normal(cells.shape)).reshape(count, -1, 8).astype(np.float16)


@pytest.mark.parametrize("count", [1, 2, 6])
def test_the_part_is_found(count):
    found = find_foreground(parts(count), GRID)
    true = np.zeros(GRID, bool)
    true[5:11, 6:11] = True
    assert found.found
    for cells in found.cells:
        assert (cells & true).sum() / (cells | true).sum() > 0.8


def test_a_surface_is_all_foreground():
    rng = np.random.default_rng(0)
    cells = unit(np.eye(8)[0] + 0.1 * rng.standard_normal((3, 256, 8))).astype(np.float16)
    found = find_foreground(cells, GRID)
    assert not found.found and found.cells.all() and found.share == 1


def test_the_region_holds_the_part():
    found = find_foreground(parts(8, shift=1), GRID)
    mask = found.region("part.json").mask(256, 256)
    assert mask[5 * 16 : 11 * 16, 7 * 16 : 10 * 16].all()
    assert not mask[:48].any() and not mask[:, :48].any() and 0.1 < mask.mean() < 0.4


def test_constant_frames():
    found = find_foreground(np.broadcast_to(np.eye(8)[0], (2, 256, 8)).astype(np.float16), GRID)
    assert not found.found
