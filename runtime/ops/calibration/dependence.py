"""How many independent frames a sequence is worth: those of a video resemble their neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

STRONG = 0.5
"""Below this share of independent frames a sequence is called dependent..."""
SIGMAS = 3.0
"""...if neighbours resemble each other by more than so many standard deviations of what chance does, 1 / sqrt(n)."""


@dataclass(frozen=True)
class Dependence:
    """How much frames resemble those before them.

    Attributes:
        frames: How many there are.
        neighbours: Rank correlation of each frame's value with the next one's, in [-1, 1].
        effective: How many independent frames would tell as much about the distribution, up to `frames`.
    """

    frames: int
    neighbours: float
    effective: float

    @property
    def strong(self) -> bool:
        """Whether the frames are worth fewer than `STRONG` of their number, and not by chance."""
        return self.effective < STRONG * self.frames and self.neighbours > SIGMAS / math.sqrt(self.frames)

    @property
    def spacing(self) -> int:
        """Of so many frames in a row one would do."""
        return max(round(self.frames / self.effective), 1)


def dependence(values: npt.ArrayLike) -> Dependence:
    """Measures the dependence in a sequence of values, in the order in which the frames came.

    Autocorrelation of the values' ranks, summed as Geyer's initial monotone sequence does: pairs of neighbouring lags
    while their sums are positive, each no larger than the one before. Ranks, since scores have heavy tails and only
    their order matters to a threshold.

    Args:
        values: Any numbers, at least one.
    """
    ranks = _midranks(np.asarray(values, np.float64))
    count = len(ranks)
    centred = ranks - ranks.mean()
    if not centred.any():
        # The same value over and over: one frame's worth.
        return Dependence(count, 1.0 if count > 1 else 0.0, 1.0)
    spectrum = np.fft.rfft(centred, 2 * count)
    covariance = np.fft.irfft(spectrum * spectrum.conj(), 2 * count)[:count]
    correlation = covariance / covariance[0]
    pairs = correlation[: count - count % 2].reshape(-1, 2).sum(axis=1)
    ends = np.flatnonzero(pairs <= 0)
    pairs = np.minimum.accumulate(pairs[: ends[0]] if len(ends) else pairs)
    time = max(2 * float(pairs.sum()) - 1, 1.0)
    return Dependence(count, float(correlation[1]) if count > 1 else 0.0, count / time)


def _midranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ranks from 0; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    middle = ends - (counts + 1) / 2
    return np.asarray(middle[place.reshape(-1)], np.float64)
