"""Whether a figure that is sampled for long goes up or down, with a confidence interval.

Samples that follow each other resemble each other, and memory grows by steps: a straight line's usual interval would
be far too narrow. So samples are taken together in blocks, and the interval is widened by the correlation that is left
between neighbouring blocks (Santer et al., J. Geophys. Res. 105, 2000, eq. 4 to 6: an effective number of blocks).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

LEVEL = 0.95
BLOCK_S = 5.0
HOUR_S = 3600.0

_Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trend:
    """A straight line through blocks of samples.

    Attributes:
        mean: Of the blocks.
        per_hour: The line's slope.
        low: The lower end of the slope's interval at `LEVEL`.
        high: Its upper end.
        blocks: How many there are.
        hours: From the first block to the last.
    """

    mean: float
    per_hour: float
    low: float
    high: float
    blocks: int
    hours: float


def trend(
    seconds: Sequence[float],
    values: Sequence[float],
    block_s: float = BLOCK_S,
    reduce: Callable[[_Numbers], float] = np.median,
) -> Trend:
    """Fits a line.

    Args:
        seconds: When each sample was taken, in order.
        values: The samples.
        block_s: Length of a block.
        reduce: Makes one value of a block's samples.

    Raises:
        ValueError: There are fewer than four blocks.
    """
    taken, sampled = np.asarray(seconds, float), np.asarray(values, float)
    numbers = ((taken - taken[0]) // block_s).astype(int) if len(taken) else np.empty(0, int)
    every = np.unique(numbers)
    if len(every) < 4:
        raise ValueError(f"{len(every)} blocks of {block_s:g} s are too few for a trend")
    hours = np.array([taken[numbers == number].mean() for number in every]) / HOUR_S
    levels = np.array([float(reduce(sampled[numbers == number])) for number in every])
    count = len(every)
    away = hours - hours.mean()
    spread = float(np.sum(away**2))
    slope = float(np.sum(away * levels)) / spread
    rest = levels - levels.mean() - slope * away
    correlation = _correlation(rest)
    effective = float(np.clip(count * (1 - correlation) / (1 + correlation), 4.0, count))
    error = float(np.sqrt(np.sum(rest**2) / (effective - 2) / spread))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, effective - 2)) * error
    return Trend(
        mean=float(levels.mean()),
        per_hour=slope,
        low=slope - reach,
        high=slope + reach,
        blocks=count,
        hours=float(hours[-1] - hours[0]),
    )


def grows(seconds: Sequence[float], values: Sequence[float], limit_per_hour: float) -> bool:
    """Whether it is sure that memory grows faster than the limit, and goes on doing so.

    Of each block the least counts: what a frame takes for a moment is no growth. A step, such as a first use of
    something, shows in one of the halves only.
    """
    middle = (seconds[0] + seconds[-1]) / 2
    late = [index for index, second in enumerate(seconds) if second >= middle]
    halves = (range(len(seconds)), range(late[0]), late)
    return all(
        trend([seconds[i] for i in part], [values[i] for i in part], reduce=np.min).low > limit_per_hour
        for part in halves
    )


def _correlation(rest: _Numbers) -> float:
    """Of neighbours; 0 where it is negative, which would make the interval narrower than that of independent ones."""
    power = float(np.sum(rest**2))
    return min(max(float(np.sum(rest[1:] * rest[:-1])) / power, 0.0), 0.99) if power > 0 else 0.0
