from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kanoclip.benchmarks.bench.comparison.bootstrap import ratio_in_turns, ratio_of_runs

TIMES = st.lists(st.floats(0.1, 1e5), min_size=1, max_size=30)


def test_ratio_in_turns_is_of_each_round():
    # A machine that is half as fast in the second half: each round's ratio still tells the truth.
    found = ratio_in_turns([5.0, 5.0, 10.0, 10.0], [10.0, 10.0, 20.0, 20.0])
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


@settings(max_examples=25, deadline=None)
@given(TIMES, st.floats(0.01, 100))
def test_the_interval_holds_the_ratio_and_scales_with_the_times(times, factor):
    found = ratio_of_runs([time * factor for time in times], times)
    assert found.low <= found.value * (1 + 1e-9) and found.value <= found.high * (1 + 1e-9)
    assert found.value == pytest.approx(factor)
    same = ratio_in_turns(times, times)
    assert same.low == same.value == same.high == 1


def test_intervals_of_equal_machines_hold_one_about_as_often_as_they_say():
    rng = np.random.default_rng(5)
    holds = 0
    for _ in range(60):
        found = ratio_of_runs(rng.gamma(50, 0.2, 60), rng.gamma(50, 0.2, 60))
        holds += found.low <= 1 <= found.high
    assert 50 <= holds <= 60


def test_rounds_that_resemble_each_other_widen_the_interval():
    rng = np.random.default_rng(1)
    drifting = 10 + np.cumsum(rng.normal(0, 0.1, 200))
    shuffled = rng.permutation(drifting)
    steady = np.full(200, 10.0)
    wide, narrow = ratio_of_runs(drifting, steady), ratio_of_runs(shuffled, steady)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
