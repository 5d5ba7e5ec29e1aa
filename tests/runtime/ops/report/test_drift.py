"""Drift against SciPy, against samples of one population, and against images that were moved."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kanoclip.runtime.ops.report.drift import (
    chi_square_quantile,
    compare,
    find_shift,
    ks_distance,
    ks_probability,
    stability,
)

samples = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=60).map(np.array)


@given(samples, samples)
def test_the_distance_is_scipys(before, now):
    assert ks_distance(before, now) == pytest.approx(stats.ks_2samp(before, now, method="asymp").statistic, abs=1e-12)


@pytest.mark.parametrize(("m", "n"), [(25, 40), (60, 60), (100, 250), (1000, 300), (20000, 15000)])
def test_the_probability_is_scipys(m, n):
    rng = np.random.default_rng(m)
    for move in (0.0, 0.5 / np.sqrt(m), 2 / np.sqrt(m)):
        before, now = rng.normal(size=m), rng.normal(move, 1, n)
        exact = stats.ks_2samp(before, now, method="exact" if m < 1000 else "asymp")
        assert ks_probability(exact.statistic, m, n) == pytest.approx(exact.pvalue, rel=0.15, abs=0.012)


@pytest.mark.parametrize("freedom", [1, 2, 4, 9, 30])
def test_the_quantile_is_scipys(freedom):
    assert chi_square_quantile(freedom) == pytest.approx(stats.chi2.isf(stats.norm.sf(3.09), freedom), rel=0.04)


def test_stability_by_hand():
    """Halves of a hundred become a quarter and three quarters: half an image is added to each bin."""
    before = np.repeat([0.0, 1.0], 50)
    psi, bins = stability(before, np.repeat([0.0, 1.0], [25, 75]))
    old, new = np.array([50.5, 50.5]) / 101, np.array([25.5, 75.5]) / 101
    assert bins == 2 and psi == pytest.approx(((new - old) * np.log(new / old)).sum())
    assert stability(before, before)[0] == 0


@given(samples, samples)
def test_stability_is_finite_and_never_negative(before, now):
    psi, bins = stability(before, now)
    assert np.isfinite(psi) and psi >= -1e-12 and 1 <= bins <= 10


def test_samples_of_one_population_hardly_ever_differ():
    """Once in a thousand times, by the bound; 400 pairs of each size."""
    rng = np.random.default_rng(7)
    for m, n in ((60, 60), (300, 100), (2000, 2000)):
        found = [compare("x", rng.gamma(2, size=m), rng.gamma(2, size=n)) for _ in range(400)]
        assert sum(one.level != "none" for one in found) <= 3
        assert sum(one.p < 0.05 for one in found) < 400 * 0.09


def test_what_changes_is_found():
    rng = np.random.default_rng(1)
    before = rng.normal(size=800)
    assert compare("x", before, rng.normal(1, 1, 800)).level == "marked"
    assert compare("x", before, rng.normal(0.3, 1, 800)).level == "slight"
    assert compare("x", before, rng.normal(0, 1, 800)).level == "none"
    found = compare("x", np.zeros(50), np.ones(50))
    assert found.level == "marked" and found.distance == 1 and found.before == 0 and found.now == 1
    same = compare("x", np.zeros(50), np.zeros(9))
    assert same.level == "none" and same.psi == 0 and same.p == 1
    assert compare("x", np.empty(0), np.ones(3)) is None


def scene(across, down):
    """A textured image of 640 pixels that is moved, made as small as mean images are."""
    rng = np.random.default_rng(5)
    large = cv2.GaussianBlur(rng.normal(size=(1040, 1040)), (0, 0), 25)
    cut = large[200 - down : 840 - down, 200 - across : 840 - across]
    small = cv2.resize(cut, (64, 64), interpolation=cv2.INTER_AREA)
    return 128 + 40 * small / large.std()


@pytest.mark.parametrize(("across", "down"), [(0, 0), (32, 0), (-20, 12), (0, -64)])
def test_shifts_are_found(across, down):
    shift = find_shift(scene(0, 0), scene(across, down))
    assert shift.known
    assert shift.across == pytest.approx(across / 640, abs=0.012)
    assert shift.down == pytest.approx(down / 640, abs=0.012)
    assert shift.moved == (across != 0 or down != 0)


def test_light_is_no_shift():
    assert not find_shift(scene(0, 0), 0.6 * scene(0, 0) + 30).moved


def test_other_images_and_empty_ones_say_nothing():
    rng = np.random.default_rng(2)
    assert not find_shift(rng.normal(size=(64, 64)), rng.normal(size=(64, 64))).known
    assert not find_shift(np.full((64, 64), 9.0), scene(0, 0)).known
    assert not find_shift(scene(0, 0), scene(70, 50)).known  # too little of it is left in the window
