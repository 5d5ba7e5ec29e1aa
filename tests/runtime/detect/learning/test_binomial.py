"""Binomial tails, against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kanoclip.runtime.detect.learning.binomial import at_most, clopper_pearson, log_cumulative, share_at

SHARES = st.floats(1e-6, 1 - 1e-6)


@st.composite
def draws(draw, largest=3000):
    count = draw(st.integers(1, largest))
    return count, draw(st.integers(0, count - 1))


@given(draws(), SHARES)
def test_tails(draw, share):
    count, most = draw
    assert at_most(count, share, most) == pytest.approx(stats.binom.cdf(most, count, share), abs=1e-9)


@given(draws(), SHARES)
def test_every_tail_at_once(draw, share):
    count, most = draw
    expected = stats.binom.logcdf(np.arange(most + 1), count, share)
    found = log_cumulative(count, share, most)
    assert found.shape == (most + 1,)
    np.testing.assert_allclose(np.exp(found), np.exp(expected), atol=1e-9)


@pytest.mark.parametrize(
    ("most", "share", "expected"), [(-1, 0.5, 0), (10, 0.5, 1), (11, 0.5, 1), (3, 0, 1), (3, 1, 0), (10, 1, 1)]
)
def test_ends(most, share, expected):
    assert at_most(10, share, most) == expected


@given(draws(), st.floats(1e-4, 1 - 1e-4))
def test_the_share_is_a_quantile_of_beta(draw, probability):
    count, most = draw
    expected = stats.beta.ppf(1 - probability, most + 1, count - most)
    assert share_at(count, most, probability) == pytest.approx(expected, rel=1e-6, abs=1e-12)


@given(draws(300), st.floats(0.5, 0.999))
def test_intervals(draw, confidence):
    count, hits = draw
    expected = stats.binomtest(hits, count).proportion_ci(confidence, "exact")
    assert clopper_pearson(hits, count, confidence) == pytest.approx((expected.low, expected.high), abs=1e-8)


def test_intervals_at_the_ends():
    assert clopper_pearson(17, 17, 0.95) == (pytest.approx(0.025 ** (1 / 17)), 1.0)
    assert clopper_pearson(0, 17, 0.95) == (0.0, pytest.approx(1 - 0.025 ** (1 / 17)))


def test_a_million_draws_lose_no_digits():
    assert at_most(1_000_000, 0.001, 950) == pytest.approx(stats.binom.cdf(950, 1_000_000, 0.001), rel=1e-6)
