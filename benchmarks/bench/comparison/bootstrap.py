"""Ratios of running times with confidence intervals, by a bootstrap over blocks of rounds.

Rounds that follow each other resemble each other (a clock that sinks, a neighbour that works for a while), so whole
blocks of them are drawn, not single ones: the interval would come out too narrow otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

DRAWS = 2000
LEVEL = 0.95

_Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ratio:
    """A ratio of times: under 1 is faster.

    Attributes:
        value: As measured.
        low: The interval's lower end.
        high: The interval's upper end.
    """

    value: float
    low: float
    high: float


def ratio_in_turns(times: Sequence[float], reference: Sequence[float]) -> Ratio:
    """The median of each round's ratio, of runners that took turns: what disturbed a round hit both of them.

    Args:
        times: Of each round.
        reference: Of the same rounds.
    """
    ratios = np.array(times, float) / np.array(reference, float)
    drawn = np.median(ratios[_blocks(len(ratios), np.random.default_rng(0))], axis=1)
    return _ratio(float(np.median(ratios)), drawn)


def ratio_of_runs(new: Sequence[float], old: Sequence[float]) -> Ratio:
    """The ratio of the medians of two runs, whose rounds have nothing to do with each other.

    Args:
        new: Times of one run's rounds.
        old: Of the other's.
    """
    rng = np.random.default_rng(0)
    above, below = np.array(new, float), np.array(old, float)
    drawn = [np.median(times[_blocks(len(times), rng)], axis=1) for times in (above, below)]
    return _ratio(float(np.median(above) / np.median(below)), drawn[0] / drawn[1])


def _blocks(count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Positions [DRAWS, count], in blocks that start anywhere and go on at the beginning after the end."""
    length = max(round(count ** (1 / 3)), 1)
    starts = rng.integers(0, count, (DRAWS, -(-count // length)))
    return ((starts[:, :, None] + np.arange(length)) % count).reshape(DRAWS, -1)[:, :count]


def _ratio(value: float, drawn: _Numbers) -> Ratio:
    rest = (1 - LEVEL) / 2 * 100
    low, high = np.percentile(drawn, [rest, 100 - rest])
    return Ratio(value, float(low), float(high))
