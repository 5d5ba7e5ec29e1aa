"""Digits that tell a score from its threshold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.sinks.draw.digits import MOST, apart

SHARES = st.floats(0, 1, width=32)


@given(SHARES, SHARES, st.integers(0, 4))
def test_what_is_shown_agrees_with_the_verdict(score, threshold, least):
    one, other = apart(score, threshold, least)
    assert (score >= threshold) == (float(one) >= float(other)) or abs(score - threshold) < 10.0**-MOST
    digits = len(one.partition(".")[2])
    assert digits == len(other.partition(".")[2]) >= least


@pytest.mark.parametrize(
    ("score", "threshold", "shown"),
    [
        (0.9, 0.5, ("0.90", "0.50")),
        (0.504, 0.496, ("0.504", "0.496")),
        (0.72999, 0.73, ("0.72999", "0.73000")),
        (0.125, 0.5, ("0.13", "0.50")),
        (0.5000000001, 0.5, ("0.500000", "0.500000")),
        (float("nan"), 0.5, ("nan", "0.50")),
        (float("inf"), 0.5, ("inf", "0.50")),
    ],
)
def test_as_many_digits_as_it_takes(score, threshold, shown):
    assert apart(score, threshold) == shown
