"""AUROC against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.errors import KanoclipError
from kanoclip.runtime.metrics import auroc

# Few different scores give many ties; the others give none.
PAIRS = st.lists(
    st.tuples(st.booleans(), st.one_of(st.integers(0, 4).map(float), st.floats(-1e300, 1e300))), min_size=1, max_size=40
)
BOTH = PAIRS.filter(lambda pairs: len({label for label, _ in pairs}) == 2)


def split(pairs):
    return np.array([label for label, _ in pairs]), np.array([score for _, score in pairs])


def oracle(labels, scores):
    """Every pair of an anomalous and a normal one."""
    wins = [float(a > n) + (a == n) / 2 for a in scores[labels] for n in scores[~labels]]
    return sum(wins) / len(wins)


@given(BOTH)
def test_equals_its_definition(pairs):
    labels, scores = split(pairs)
    assert auroc(labels, scores) == pytest.approx(oracle(labels, scores), abs=1e-12)


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], 1),
        ([1, 1, 0, 0], [0.1, 0.2, 0.3, 0.4], 0),
        ([0, 1], [0.5, 0.5], 0.5),
        ([0, 0, 1], [0.5, 0.1, 0.5], 0.75),
        ([0, 1, 0, 1], [1, 2, 3, 4], 0.75),
        ([0, 1], [-math.inf, math.inf], 1),
        ([1, 0], [math.inf, math.inf], 0.5),
    ],
)
def test_known_values(labels, scores, expected):
    assert auroc(np.array(labels), np.array(scores)) == expected


@given(BOTH)
def test_only_the_order_counts(pairs):
    labels, scores = split(pairs)
    _, ranks = np.unique(scores, return_inverse=True)
    assert auroc(labels, np.exp(ranks / 10.0) - 7) == auroc(labels, scores)


@given(BOTH)
def test_the_other_way_round(pairs):
    labels, scores = split(pairs)
    assert auroc(labels, -scores) == pytest.approx(1 - auroc(labels, scores), abs=1e-12)
    assert auroc(~labels, scores) == pytest.approx(1 - auroc(labels, scores), abs=1e-12)


@given(BOTH, st.randoms())
def test_the_order_of_pictures_does_not_count(pairs, random):
    shuffled = random.sample(pairs, len(pairs))
    assert auroc(*split(shuffled)) == auroc(*split(pairs))


def test_maps_of_pixels_are_flattened():
    labels = np.array([[True, False], [False, True]])
    scores = np.array([[0.9, 0.1], [0.8, 0.7]], np.float32)
    assert auroc(labels, scores) == 0.75
    assert auroc(labels[:, ::-1], scores[:, ::-1]) == 0.75


def test_close_scores_are_not_ties():
    a = np.float32(0.5)
    b = np.nextafter(a, np.float32(1))
    assert auroc(np.array([False, True]), np.array([a, b])) == 1


@pytest.mark.parametrize("labels", [[], [True], [False], [True, True], [False, False, False]])
def test_nan_when_a_kind_is_absent(labels):
    assert math.isnan(auroc(np.array(labels, bool), np.arange(len(labels), dtype=float)))


@pytest.mark.parametrize("labels", [[True, False], [True, True]])
def test_nan_scores_are_refused(labels):
    with pytest.raises(KanoclipError, match="NaN"):
        auroc(np.array(labels), np.array([0.5, np.nan]))


def test_lengths_must_agree():
    with pytest.raises(KanoclipError, match="2 labels and 3 scores"):
        auroc(np.array([True, False]), np.zeros(3))


def test_a_million_pixels_count_exactly():
    """Large enough that 32-bit counts or float32 ranks would be off."""
    count = 1 << 20
    labels = np.arange(2 * count) % 2 == 1
    scores = np.arange(2 * count, dtype=np.float64)
    assert auroc(labels, scores) == (count + 1) / (2 * count)
