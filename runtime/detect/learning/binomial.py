"""Tails of the binomial distribution, and what follows from them; exact sums in logarithms."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

_HALVINGS = 60
"""Halvings of [0, 1] in a search."""


def log_cumulative(count: int, share: float, most: int) -> npt.NDArray[np.float64]:
    """Logarithm of P(X <= m) for each m from 0 to `most`, X being binomial.

    Args:
        count: Draws, at least 1.
        share: Probability of a hit, strictly between 0 and 1.
        most: From 0 to `count`.
    """
    hits = np.arange(1, most + 1)
    odds = math.log(share) - math.log1p(-share)
    steps = np.log((count - hits + 1) / hits) + odds
    logs = count * math.log1p(-share) + np.concatenate([[0.0], np.cumsum(steps)])
    return np.minimum(np.logaddexp.accumulate(logs), 0.0)


def at_most(count: int, share: float, most: int) -> float:
    """P(X <= most) of a binomial X."""
    if most < 0:
        return 0.0
    if most >= count or share <= 0:
        return 1.0
    return 0.0 if share >= 1 else float(np.exp(log_cumulative(count, share, most)[-1]))


def share_at(count: int, most: int, probability: float) -> float:
    """The share p at which P(X <= most) = probability; it falls in p.

    This is the `1 - probability` quantile of Beta(most + 1, count - most).

    Args:
        count: Draws, at least 1.
        most: From 0 to `count` - 1.
        probability: Strictly between 0 and 1.
    """
    return _falling(lambda share: at_most(count, share, most), probability)


def clopper_pearson(hits: int, count: int, confidence: float) -> tuple[float, float]:
    """The exact interval of a share after `hits` of `count`; it covers the true one with at least `confidence`.

    Args:
        hits: From 0 to `count`.
        count: At least 1.
        confidence: Strictly between 0 and 1.
    """
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else share_at(count, hits - 1, 1 - tail)
    high = 1.0 if hits == count else share_at(count, hits, tail)
    return low, high


def _falling(function: Callable[[float], float], wanted: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if function(middle) > wanted:
            low = middle
        else:
            high = middle
    return (low + high) / 2
