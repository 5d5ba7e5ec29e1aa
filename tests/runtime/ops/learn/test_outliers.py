"""References of another product, with a defect, or of another shape are found; good ones are not."""

from __future__ import annotations

import numpy as np
import pytest
from learning import observed
from references import frames, references, unit

from kanoclip.runtime.detect.reference.fit import References
from kanoclip.runtime.ops.learn.outliers import find_outliers


def planted(count, change, seed=0):
    cells = frames(count, seed=seed)
    change(cells)
    base = references(count)
    return observed(count, refs=References.of(base.names, cells, base.zero_shot, (8, 8)))


@pytest.mark.parametrize("seed", range(4))
def test_good_frames_are_left_alone(seed):
    assert find_outliers(observed(20, refs=references(20, seed=seed, channels=64))) == []


def test_a_defect():
    def spoil(cells):
        cells[7, 0, 30] = unit(np.random.default_rng(3).standard_normal(16))

    (one,) = find_outliers(planted(20, spoil))
    assert one.number == 7 and one.name == "07.png" and "times as far" in one.reason


@pytest.mark.parametrize("others", [1, 3])
def test_another_product(others):
    def mix(cells):
        cells[:others] = unit(np.random.default_rng(5).standard_normal((1, 1, 64, 16)) + cells[:others] * 0.05)

    assert {one.number for one in find_outliers(planted(20, mix))} == set(range(others))


def test_another_shape():
    found = find_outliers(observed(4, sizes=[(480, 640), (480, 640), (960, 1280), (640, 480)]))
    assert [one.number for one in found] == [3] and "480x640" in found[0].reason


def test_parts_that_are_cut_out_as_they_come_have_no_odd_shape():
    sizes = [(300 + 40 * n, 340) for n in range(9)]
    assert find_outliers(observed(10, sizes=[*sizes, sizes[0]])) == []


@pytest.mark.parametrize("count", [1, 2, 4])
def test_too_few_to_tell(count):
    assert find_outliers(observed(count)) == []
