"""The promise about false alarms, held against simulated cameras whose true rate is known."""

from __future__ import annotations

import math
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kanoclip.runtime.detect.learning.conformal import bound, frames_needed, least_rate
from kanoclip.runtime.detect.regions import find_regions
from kanoclip.runtime.errors import CalibrationError

RATES = st.sampled_from([0.001, 0.003, 0.01, 0.05, 0.1, 0.3])
CONFIDENCES = st.none() | st.sampled_from([0.5, 0.8, 0.95, 0.999])
VALUES = st.lists(st.floats(0, 0.999), min_size=20, max_size=80)
SCORES = {
    "uniform": stats.uniform(),
    "most near 0": stats.beta(2, 30),
    "most near 1": stats.beta(40, 1.5),
    "two lumps": None,
    "tied": None,
}


def draw(kind, random, count):
    """Scores of good frames, and the function that gives the true share at or above a threshold."""
    if kind == "tied":  # an 8-bit camera in the dark: few different scores
        return random.binomial(12, 0.3, count) / 16, lambda at: stats.binom.sf(math.ceil(at * 16) - 1, 12, 0.3)
    if kind == "two lumps":
        near = random.random(count) < 0.97
        scores = np.where(near, random.uniform(0.1, 0.2, count), random.uniform(0.7, 0.8, count))
        return scores, lambda at: 0.97 * stats.uniform.sf(at, 0.1, 0.1) + 0.03 * stats.uniform.sf(at, 0.7, 0.1)
    return SCORES[kind].rvs(count, random_state=random), SCORES[kind].sf


def realised(kind, random, promised):
    """The true rate of one calibration."""
    scores, share_above = draw(kind, random, promised.frames)
    return share_above(promised.threshold(scores))


@pytest.mark.parametrize(("frames", "rate"), [(500, 0.01), (3500, 0.001)])
def test_the_rate_is_kept_in_95_of_100_calibrations(frames, rate):
    """In 100 repeats the count itself varies, by 2 or so: it is 95 on average over 25 times 100, 5 a distribution."""
    random = np.random.default_rng(7)
    promised = bound(frames, rate, 0.95)
    kept = [sum(realised(kind, random, promised) <= rate for _ in range(100)) for kind in SCORES for _ in range(5)]
    assert np.mean(kept) >= 95
    assert min(kept) >= 88


@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize(("frames", "rate"), [(500, 0.01), (5000, 0.001)])
def test_with_confidence_99_every_100_calibrations_have_95_that_keep_it(kind, frames, rate):
    random = np.random.default_rng(7)
    promised = bound(frames, rate, 0.99)
    for _ in range(3):
        assert sum(realised(kind, random, promised) <= rate for _ in range(100)) >= 95


@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize(("frames", "rate", "confidence"), [(299, 0.01, 0.95), (1000, 0.01, 0.9), (150, 0.1, 0.99)])
def test_the_confidence_is_kept_over_many_calibrations(kind, frames, rate, confidence):
    random = np.random.default_rng(11)
    repeats = 1500
    promised = bound(frames, rate, confidence)
    kept = sum(realised(kind, random, promised) <= rate for _ in range(repeats))
    sure = promised.sureness
    assert sure >= confidence
    noise = 4 * math.sqrt(confidence * (1 - confidence) / repeats)
    assert kept / repeats >= confidence - noise
    if kind == "uniform":  # continuous: as sure as it says and no surer, so a bound that is too careful fails too
        assert kept / repeats == pytest.approx(sure, abs=4 * math.sqrt(sure * (1 - sure) / repeats) + 1e-9)


@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize(("frames", "rate"), [(99, 0.01), (999, 0.01), (150, 0.1)])
def test_without_a_confidence_the_rate_is_kept_on_average(kind, frames, rate):
    random = np.random.default_rng(13)
    promised = bound(frames, rate)
    rates = [realised(kind, random, promised) for _ in range(1500)]
    noise = 4 * promised.mean_rate / math.sqrt(len(rates) * (promised.allowed + 1))
    assert np.mean(rates) <= rate + noise
    if kind == "uniform":
        assert np.mean(rates) == pytest.approx(promised.mean_rate, abs=noise)


@pytest.mark.parametrize("confidence", [None, 0.95])
def test_what_it_says_about_one_calibration(confidence):
    random = np.random.default_rng(17)
    promised = bound(400, 0.02, confidence)
    rates = np.array([realised("uniform", random, promised) for _ in range(3000)])
    assert (rates <= 0.02).mean() == pytest.approx(promised.sureness, abs=0.03)
    assert (rates <= promised.rate_within(0.95)).mean() == pytest.approx(0.95, abs=0.016)
    assert promised.rate_within(0.95) == pytest.approx(
        stats.beta.ppf(0.95, promised.allowed + 1, 400 - promised.allowed), rel=1e-6
    )


@given(st.integers(1, 20_000), RATES)
def test_the_rank_is_the_formula(frames, rate):
    exact = Fraction(str(rate))
    rank = math.ceil((frames + 1) * (1 - exact))
    if rank > frames:
        with pytest.raises(CalibrationError):
            bound(frames, rate)
    else:
        assert bound(frames, rate).rank == rank


@given(st.integers(1, 20_000), RATES, st.sampled_from([0.5, 0.8, 0.95, 0.999]))
def test_with_a_confidence_it_allows_as_many_as_it_may_and_no_more(frames, rate, confidence):
    def kept(allowed):
        return stats.beta.cdf(rate, allowed + 1, frames - allowed)

    if frames < frames_needed(rate, confidence):
        assert kept(0) < confidence
        return
    allowed = bound(frames, rate, confidence).allowed
    assert kept(allowed) >= confidence - 1e-9
    assert kept(allowed + 1) < confidence + 1e-9


@given(RATES, CONFIDENCES)
def test_the_frames_needed_are_enough_and_one_less_is_not(rate, confidence):
    needed = frames_needed(rate, confidence)
    assert bound(needed, rate, confidence).allowed == 0
    with pytest.raises(CalibrationError, match=re.escape(f"it takes {needed}")):
        bound(needed - 1, rate, confidence)


def test_the_frames_needed_for_a_thousandth():
    assert frames_needed(0.001) == 999
    assert frames_needed(0.001, 0.95) == 2995
    with pytest.raises(CalibrationError, match=r"^998 good frames are too few .*rate of 0.001: it takes 999"):
        bound(998, 0.001)


@given(st.integers(1, 5000), CONFIDENCES)
def test_the_rate_that_is_offered_instead_is_good_enough(frames, confidence):
    try:
        bound(frames, 1e-6, confidence)
    except CalibrationError as error:
        offered = re.search(r"these are enough for (no rate|\S+)$", str(error))[1]
        if offered == "no rate":
            assert least_rate(frames, confidence) > 0.98
        else:
            assert float(offered) <= 1.11 * least_rate(frames, confidence)
            bound(frames, float(offered), confidence)


@given(VALUES, st.sampled_from([0.05, 0.1, 0.3]), st.sampled_from([None, 0.5]))
def test_no_more_than_allowed_reach_it_and_no_lower_threshold_would_do(values, rate, confidence):
    try:
        promised = bound(len(values), rate, confidence)
    except CalibrationError:
        return
    threshold = promised.threshold(values)
    assert sum(value >= threshold for value in values) <= promised.allowed
    lower = float(np.nextafter(np.float32(threshold), np.float32(-1)))
    assert sum(value >= lower for value in values) > promised.allowed


@given(VALUES, st.randoms())
def test_the_order_of_the_frames_does_not_matter(values, random):
    promised = bound(len(values), 0.1)
    shuffled = random.sample(values, len(values))
    assert promised.threshold(shuffled) == promised.threshold(values)


@given(st.lists(st.floats(0, 0.9375, width=32), min_size=20, max_size=40))
def test_maps_are_compared_in_the_precision_of_the_threshold(peaks):
    """numpy takes a Python number as float32 beside a float32 map: a float64 just above a value would equal it."""
    promised = bound(len(peaks), 0.1)
    threshold = promised.threshold(peaks)
    maps = [np.full((2, 2), peak, np.float32) for peak in peaks]
    assert sum(bool(find_regions(one, threshold, 0, 2, 2)) for one in maps) <= promised.allowed


def test_values_that_reach_one():
    with pytest.raises(CalibrationError, match="3 of 20 good frames reach the largest value"):
        bound(20, 0.1).threshold([0.5] * 17 + [1.0] * 3)
    assert bound(20, 0.1).threshold([0.5] * 19 + [1.0]) == float(np.nextafter(np.float32(0.5), np.float32(1)))


@pytest.mark.parametrize(("rate", "confidence"), [(0, None), (1, None), (float("nan"), None), (0.1, 0.4), (0.1, 1.0)])
def test_rates_and_confidences_that_are_none(rate, confidence):
    with pytest.raises(CalibrationError, match="is not"):
        bound(1000, rate, confidence)
