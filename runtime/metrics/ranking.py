"""Metrics of a ranking: how well scores put the anomalous before the normal.

Only the anomalous ones' scores matter as thresholds: for each different one, how many anomalous ones have it, and how
many normal ones lie above it and at or above it. Every metric here is a sum or a maximum over these.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.errors import KanoclipError

Bools = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]


class RankingSums:
    """Sums over the different scores of the anomalous ones, from the largest score to the smallest.

    The sums are made one number after the other, so the result is the same to the bit wherever the scores are cut
    into portions.
    """

    def __init__(self, positives: int, negatives: int) -> None:
        """Starts with nothing added.

        Args:
            positives: Anomalous ones in all portions together, at least 1.
            negatives: Normal ones in all portions together, at least 1.
        """
        self._positives = positives
        self._negatives = negatives
        self._found = 0
        self._wins = 0.0
        self._precisions = 0.0
        self._f1 = 0.0

    def add(self, counts: Counts, above: Counts, reached: Counts) -> None:
        """Takes the next lower scores.

        Args:
            counts: Anomalous ones that have each score, [U], U >= 1, largest score first.
            above: Normal ones with a larger score, [U].
            reached: Normal ones with that or a larger score, [U].
        """
        found = self._found + np.cumsum(counts)
        self._found = int(found[-1])
        self._wins = running_sum(self._wins, counts * (self._negatives - (above + reached) / 2))
        self._precisions = running_sum(self._precisions, counts * (found / (found + reached)))
        self._f1 = max(self._f1, float((2 * found / (self._positives + found + reached)).max()))

    @property
    def auroc(self) -> float:
        """The chance that an anomalous one scores above a normal one, ties counted half."""
        return self._wins / (self._positives * self._negatives)

    @property
    def average_precision(self) -> float:
        """The mean, over the anomalous ones, of the precision at their score."""
        return self._precisions / self._positives

    @property
    def f1_max(self) -> float:
        """The largest F1 of all thresholds; a threshold at a normal one's score cannot be better."""
        return self._f1


def image_auroc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve, exactly: the chance that an anomalous one scores above a normal one, ties counted half.

    Args:
        labels: True (or a positive whole number) for anomalous, of any shape.
        scores: Larger means more anomalous, as many; compared as float64.

    Returns:
        In [0, 1]; NaN when one of the two kinds is absent.

    Raises:
        KanoclipError: The numbers of labels and scores differ, a score is NaN, or a label is no label.
    """
    sums = _ranking(labels, scores)
    return float("nan") if sums is None else sums.auroc


def average_precision(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Average precision as scikit-learn has it: the sum of precision times gain in recall, without interpolation.

    Arguments, result and errors are those of `image_auroc`.
    """
    sums = _ranking(labels, scores)
    return float("nan") if sums is None else sums.average_precision


def f1_max(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """The largest F1 that any threshold reaches.

    Arguments, result and errors are those of `image_auroc`.
    """
    sums = _ranking(labels, scores)
    return float("nan") if sums is None else sums.f1_max


def running_sum(start: float, terms: npt.NDArray[Any]) -> float:
    """Adds terms to `start` strictly one after the other, where `np.sum` would group them by their number."""
    return float(np.add.accumulate(np.concatenate(([start], terms)))[-1])


def count_reached(scores: Floats, negatives: Floats) -> tuple[Counts, Counts]:
    """For each score, how many normal ones lie above it, and at or above it.

    Args:
        scores: In any order, [U].
        negatives: Scores of normal ones, ascending, of the same dtype.
    """
    above = len(negatives) - np.searchsorted(negatives, scores, "right")
    reached = len(negatives) - np.searchsorted(negatives, scores, "left")
    return above, reached


def as_bools(values: npt.ArrayLike, name: str) -> Bools:
    """Labels or a mask as bool: bool, whole numbers (0 is normal, as in 0 and 255) or floats that are 0 or 1.

    Raises:
        KanoclipError: They are something else, as when scores were passed in their place.
    """
    array = np.asarray(values)
    bools: Bools = array if array.dtype == np.bool_ else array != 0
    if array.size == 0 or array.dtype == np.bool_:
        return bools
    if array.dtype.kind == "f" and not (bools == array).all():
        raise KanoclipError(f"{name} with numbers other than 0 and 1: pass {name} first, then what is measured")
    if array.dtype.kind not in "iuf":
        raise KanoclipError(f"{name} of {array.dtype}: pass True for anomalous, False for normal")
    if array.dtype.kind == "i" and array.min() < 0:
        raise KanoclipError(f"{name} with negative numbers: 0 is normal, 1 anomalous")
    return bools


def _ranking(labels: npt.ArrayLike, scores: npt.ArrayLike) -> RankingSums | None:
    """The sums of one score an image; None when a kind is absent."""
    known, values = as_bools(labels, "labels").ravel(), np.asarray(scores, dtype=np.float64).ravel()
    if known.shape != values.shape:
        raise KanoclipError(f"{len(known)} labels and {len(values)} scores: pass one score a label")
    if np.isnan(values).any():
        raise KanoclipError("scores that hold NaN cannot be ranked: find out which image gave it")
    thresholds, counts = np.unique(values[known], return_counts=True)
    negatives = np.sort(values[~known])
    if not len(thresholds) or not len(negatives):
        return None
    sums = RankingSums(int(counts.sum()), len(negatives))
    sums.add(counts[::-1], *count_reached(thresholds[::-1], negatives))
    return sums
