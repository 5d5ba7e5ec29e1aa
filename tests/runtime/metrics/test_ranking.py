"""Image metrics against their definitions and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.errors import KanoclipError
from kanoclip.runtime.metrics import average_precision, f1_max, image_auroc
from kanoclip.runtime.metrics.ranking import RankingSums

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
    assert image_auroc(labels, scores) == pytest.approx(oracle(labels, scores), abs=1e-12)


def sklearn_f1_max(labels, scores):
    precision, recall, _ = sklearn.metrics.precision_recall_curve(labels, scores)
    both = precision + recall
    return (2 * precision * recall / np.where(both > 0, both, 1)).max()


@given(BOTH)
def test_equals_scikit_learn(pairs):
    labels, scores = split(pairs)
    assert image_auroc(labels, scores) == pytest.approx(sklearn.metrics.roc_auc_score(labels, scores), abs=1e-12)
    expected = sklearn.metrics.average_precision_score(labels, scores)
    assert average_precision(labels, scores) == pytest.approx(expected, abs=1e-12)
    assert f1_max(labels, scores) == pytest.approx(sklearn_f1_max(labels, scores), abs=1e-12)


@pytest.mark.parametrize(
    ("labels", "scores", "precision", "f1"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], 1, 1),
        ([1, 1, 0, 0], [0.1, 0.2, 0.3, 0.4], (1 / 3 + 2 / 4) / 2, 2 / 3),
        ([0, 1], [0.5, 0.5], 0.5, 2 / 3),
        ([1, 0, 1], [3, 2, 1], (1 + 2 / 3) / 2, 0.8),
    ],
)
def test_known_precision_and_f1(labels, scores, precision, f1):
    assert average_precision(labels, scores) == pytest.approx(precision)
    assert f1_max(labels, scores) == pytest.approx(f1)


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
    assert image_auroc(np.array(labels), np.array(scores)) == expected


@given(BOTH)
def test_only_the_order_counts(pairs):
    labels, scores = split(pairs)
    _, ranks = np.unique(scores, return_inverse=True)
    assert image_auroc(labels, np.exp(ranks / 10.0) - 7) == image_auroc(labels, scores)


@given(BOTH)
def test_the_other_way_round(pairs):
    labels, scores = split(pairs)
    assert image_auroc(labels, -scores) == pytest.approx(1 - image_auroc(labels, scores), abs=1e-12)
    assert image_auroc(~labels, scores) == pytest.approx(1 - image_auroc(labels, scores), abs=1e-12)


@given(BOTH, st.randoms())
def test_the_order_of_images_does_not_count(pairs, random):
    shuffled = random.sample(pairs, len(pairs))
    assert image_auroc(*split(shuffled)) == image_auroc(*split(pairs))


def test_maps_of_pixels_are_flattened():
    labels = np.array([[True, False], [False, True]])
    scores = np.array([[0.9, 0.1], [0.8, 0.7]], np.float32)
    assert image_auroc(labels, scores) == 0.75
    assert image_auroc(labels[:, ::-1], scores[:, ::-1]) == 0.75


def test_close_scores_are_not_ties():
    a = np.float32(0.5)
    b = np.nextafter(a, np.float32(1))
    assert image_auroc(np.array([False, True]), np.array([a, b])) == 1


EVERY = pytest.mark.parametrize("metric", [image_auroc, average_precision, f1_max])


@EVERY
@pytest.mark.parametrize("labels", [[], [True], [False], [True, True], [False, False, False]])
def test_nan_when_a_kind_is_absent(metric, labels):
    assert math.isnan(metric(np.array(labels, bool), np.arange(len(labels), dtype=float)))


@EVERY
@pytest.mark.parametrize("labels", [[True, False], [True, True]])
def test_nan_scores_are_refused(metric, labels):
    with pytest.raises(KanoclipError, match="NaN"):
        metric(np.array(labels), np.array([0.5, np.nan]))


@EVERY
def test_lengths_must_agree(metric):
    with pytest.raises(KanoclipError, match="2 labels and 3 scores"):
        metric(np.array([True, False]), np.zeros(3))


def test_zero_has_one_value():
    labels = np.array([True, False] * 40)
    scores = np.where(np.arange(80) % 3 == 0, -0.0, 0.0)
    assert image_auroc(labels, scores) == 0.5


def test_a_million_pixels_count_exactly():
    """Large enough that 32-bit counts or float32 ranks would be off."""
    count = 1 << 20
    labels = np.arange(2 * count) % 2 == 1
    scores = np.arange(2 * count, dtype=np.float64)
    assert image_auroc(labels, scores) == (count + 1) / (2 * count)


def test_more_than_32_bits_count():
    """As from the pixels of some 40,000 maps."""
    half = 5_000_000_000
    sums = RankingSums(2 * half, 4 * half)
    sums.add(np.array([half]), np.array([0]), np.array([half]))
    sums.add(np.array([half]), np.array([2 * half]), np.array([4 * half]))
    assert sums.auroc == pytest.approx((3.5 + 1) / 8, abs=1e-15)
    assert sums.average_precision == pytest.approx((1 / 2 + 2 / 6) / 2, abs=1e-15)
    assert sums.f1_max == pytest.approx(0.5, abs=1e-15)


@EVERY
@pytest.mark.parametrize(
    "labels", [[0, 1, 0, 1], [0, 255, 0, 7], [0.0, 1.0, 0.0, 1.0], np.array([0, 1, 0, 1], np.uint8), [[0, 1], [0, 1]]]
)
def test_labels_of_several_kinds(metric, labels):
    scores = np.array([0.1, 0.3, 0.3, 0.2])
    assert metric(labels, scores) == metric(np.array([False, True, False, True]), scores)


@EVERY
@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0.2, 0.9], "pass labels first"),
        ([math.nan, 1.0], "pass labels first"),
        ([-1, 1], "negative"),
        (["good", "bad"], "labels of"),
    ],
)
def test_labels_that_are_none(metric, labels, words):
    with pytest.raises(KanoclipError, match=words):
        metric(labels, [0.5, 0.7])
