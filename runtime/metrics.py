"""Metrics of anomaly detection, in numpy: one implementation for training, evaluation and the parity gate."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.errors import KanoclipError


def auroc(labels: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]) -> float:
    """Area under the ROC curve, exactly: the chance that an anomalous one scores above a normal one, ties counted half.

    Args:
        labels: True for anomalous, [N].
        scores: Larger means more anomalous, [N].

    Returns:
        In [0, 1]; NaN when one of the two kinds is absent.

    Raises:
        KanoclipError: The lengths differ, or a score is NaN.
    """
    labels, scores = np.asarray(labels, dtype=bool).ravel(), np.asarray(scores, dtype=np.float64).ravel()
    if labels.shape != scores.shape:
        raise KanoclipError(f"AUROC of {len(labels)} labels and {len(scores)} scores: pass one score a label")
    if np.isnan(scores).any():
        raise KanoclipError("AUROC of scores that hold NaN: find out which picture gave it")
    positive = int(labels.sum())
    negative = len(labels) - positive
    if positive == 0 or negative == 0:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    # Rank of a tie is the mean of the ranks that it spans.
    ranks = np.cumsum(counts) - (counts - 1) / 2
    wins = ranks[inverse][labels].sum() - positive * (positive + 1) / 2
    return float(wins / (positive * negative))
