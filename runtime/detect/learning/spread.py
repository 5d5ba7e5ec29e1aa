"""A threshold from the spread of all references, where the conformal one hangs on a single reference.

With about as many references as a rate takes, the conformal bound lies above every one of them: its threshold is the
largest of their values, which a single odd reference sets, or chance. The spread of all of them says with less noise
where the quantile is. It is taken on the logits of the scores, which are nearly normal: the prediction bound of
Student's t, mean + t s sqrt(1 + 1 / n). docs/learn.md has what both do on real images.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.detect.learning.conformal import Bound

_EDGE = 1e-6
"""Scores are held so far from 0 and 1, where a logit is infinite."""


def spread_threshold(scores: npt.ArrayLike, rate: float) -> float:
    """The score that a good frame to come reaches with a probability of about `rate`.

    Args:
        scores: Of good frames, out of sample, in [0, 1]; at least 3.
        rate: Strictly between 0 and 0.5.

    Returns:
        A float32 number in (0, 1).

    Examples:
        >>> round(spread_threshold([0.2, 0.25, 0.3, 0.35, 0.4] * 4, 0.05), 2)
        0.43
    """
    values = np.clip(np.asarray(scores, np.float64), _EDGE, 1 - _EDGE)
    logits = np.log(values / (1 - values))
    count = len(logits)
    reach = student_quantile(1 - rate, count - 1) * math.sqrt(1 + 1 / count)
    return float(np.float32(1 / (1 + math.exp(-(logits.mean() + reach * logits.std(ddof=1))))))


def lowered(threshold: float, scores: npt.ArrayLike, found: Bound, requested: float) -> float:
    """The threshold that is used: the bound's, or less where that hangs on the largest score alone.

    Args:
        threshold: The bound's.
        scores: Of good frames, out of sample.
        found: The bound. One with a confidence is left alone.
        requested: The rate that was wanted. Where the frames are too few for it, the bound is left alone too.
    """
    if found.confidence is not None or found.rate > requested or found.allowed > 0:
        return threshold
    return min(threshold, spread_threshold(scores, requested))


def student_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t with so many degrees of freedom, to 0.01 from 5 on (Hill 1970, as a series).

    Args:
        probability: Strictly between 0 and 1.
        freedom: Degrees of freedom, at least 2.
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(z + sum(term / freedom ** (power + 1) for power, term in enumerate(terms)))
