"""Scores in buckets: nothing high is lost, nothing old is kept."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kanoclip.runtime.service.page.feed.score_history import BUCKETS, SPANS_S, ScoreHistory

frames = st.lists(
    st.tuples(st.floats(0, 30), st.floats(0, 1), st.booleans()), max_size=200
)  # seconds since the last, score, verdict


@pytest.mark.parametrize("span", SPANS_S)
@settings(max_examples=40)
@given(frames)
def test_the_highest_score_of_the_span_is_there(span, rows):
    history, now, kept = ScoreHistory(span), 0.0, []
    for gap, score, anomalous in rows:
        now += gap
        history.add(now, score, anomalous)
        kept.append((now, score, anomalous))
    buckets = history.since(0, now)
    assert len(buckets) <= BUCKETS
    assert [key for key, *_ in buckets] == sorted({key for key, *_ in buckets})
    # All but the bucket that the span begins in, which may have left it.
    inside = [row for row in kept if row[0] > now - span + 2 * history.width_s]
    if inside:
        assert max(high for _, _, high, _ in buckets) >= max(score for _, score, _ in inside)
        assert min(low for _, low, _, _ in buckets) <= min(score for _, score, _ in inside)
        assert any(flag for *_, flag in buckets) or not any(anomalous for *_, anomalous in inside)
    assert all(low <= high for _, low, high, _ in buckets)
    assert all(key >= now / history.width_s - BUCKETS - 1 for key, *_ in buckets)


def test_only_what_is_new_is_told():
    history = ScoreHistory(60)
    for tenth in range(100):
        history.add(tenth / 10, tenth / 100, False)
    told = history.since(0, 9.9)
    assert history.since(told[-1][0], 9.9) == told[-1:]
    history.add(9.95, 1.0, True)
    assert history.since(told[-1][0], 9.95) == [(told[-1][0], told[-1][1], 1.0, 1)]
    assert history.since(10**9, 9.95) == []
