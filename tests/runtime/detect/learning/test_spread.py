"""The threshold by the spread of all references, against scipy's own quantile and simulated frames."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kanoclip.runtime.detect.learning.spread import spread_threshold, student_quantile


@given(probability=st.floats(0.9, 0.995), freedom=st.integers(5, 400))
def test_the_quantile_is_students(probability, freedom):
    assert student_quantile(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), abs=0.01)


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.1])
def test_of_frames_with_normal_logits_the_rate_is_kept(rate):
    rng = np.random.default_rng(0)
    drawn = 1 / (1 + np.exp(-rng.normal(-1, 0.7, (4000, 21))))
    reached = [row[20] >= spread_threshold(row[:20], rate) for row in drawn]
    assert np.mean(reached) == pytest.approx(rate, abs=3 * np.sqrt(rate * (1 - rate) / 4000))


@given(st.lists(st.floats(0, 1), min_size=3, max_size=40), st.floats(0.01, 0.4))
def test_it_is_a_score_whatever_comes(scores, rate):
    found = spread_threshold(scores, rate)
    assert 0 <= found <= 1 and found == np.float32(found)
