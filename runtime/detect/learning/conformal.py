"""The threshold of split conformal prediction, from good frames alone.

Let S_1 <= ... <= S_n be the values of n good frames that are exchangeable with those to come, and m the number of them
that may lie above the threshold, which is just above S_{n-m}. Then, whatever the distribution:

- averaged over calibrations, the next good frame reaches it with a probability of at most (m + 1) / (n + 1);
- for independent frames, the rate of this one calibration, for ever after, is distributed as Beta(m + 1, n - m), or
  lower where values are tied.

Without a confidence m is the largest with (m + 1) / (n + 1) <= rate: the threshold is just above the
ceil((n + 1)(1 - rate))-th smallest value. With a confidence m is the largest for which that Beta distribution is at or
below the rate with at least that probability, which is P(Binomial(n, rate) > m).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.detect.learning.binomial import at_most, log_cumulative, share_at
from kanoclip.runtime.errors import CalibrationError


@dataclass(frozen=True)
class Bound:
    """What is promised about false alarms.

    Attributes:
        rate: The false-alarm rate asked for, strictly between 0 and 1.
        confidence: With which this calibration keeps it, in [0.5, 1); None for the average over calibrations.
        frames: n, how many good frames there are.
        allowed: m, how many of them may lie above the threshold.
    """

    rate: float
    confidence: float | None
    frames: int
    allowed: int

    @property
    def rank(self) -> int:
        """Which of the values, from the smallest, the threshold lies just above; from 1."""
        return self.frames - self.allowed

    @property
    def mean_rate(self) -> float:
        """The expected false-alarm rate, ties aside."""
        return (self.allowed + 1) / (self.frames + 1)

    @property
    def sureness(self) -> float:
        """The probability, over calibrations, that the true rate is at most the one asked for."""
        return 1 - at_most(self.frames, self.rate, self.allowed)

    def rate_within(self, probability: float) -> float:
        """What the true rate is at or below with a probability: the quantile of its Beta distribution."""
        return share_at(self.frames, self.allowed, 1 - probability)

    def threshold(self, values: npt.ArrayLike) -> float:
        """The least float32 number above the value of this rank: what is at or above it is above that value.

        Maps are compared in float32, so it must be one.

        Args:
            values: As many as `frames`, in [0, 1].

        Raises:
            CalibrationError: That value is 1, above which nothing can be told apart.
        """
        ordered = np.sort(np.asarray(values, np.float64))
        if len(ordered) != self.frames:
            raise ValueError(f"{len(ordered)} values for a bound of {self.frames}")
        value = ordered[self.rank - 1]
        above = np.float32(value)
        if float(above) <= value:
            above = np.nextafter(above, np.float32(2))
        if above > 1:
            raise CalibrationError(
                f"{int((ordered >= value).sum())} of {self.frames} good frames reach the largest value, 1: no "
                "threshold keeps the rate; use a region of interest, or another class"
            )
        return float(above)


def bound(frames: int, rate: float, confidence: float | None = None) -> Bound:
    """The bound that so many good frames give.

    Args:
        frames: How many there are.
        rate: False-alarm rate wanted, strictly between 0 and 1.
        confidence: In [0.5, 1), or None.

    Raises:
        CalibrationError: They are too few; the message says how many it takes, and what these are good for.
    """
    _check(rate, confidence)
    needed = frames_needed(rate, confidence)
    if frames < needed:
        sure = "" if confidence is None else f" with confidence {confidence:g}"
        best = f"; {_offered(frames, confidence)}" if frames else ""
        raise CalibrationError(
            f"{frames} good frames are too few for a false-alarm rate of {rate:g}{sure}: it takes {needed}{best}"
        )
    most = math.floor((frames + 1) * _exact(rate)) - 1
    if confidence is None:
        return Bound(rate, None, frames, most)
    # A confidence of at least a half allows no more than about the average does.
    cumulative = np.exp(log_cumulative(frames, rate, min(most + 2, frames - 1)))
    allowed = int(np.searchsorted(cumulative, 1 - confidence, side="right")) - 1
    return Bound(rate, confidence, frames, allowed)


def frames_needed(rate: float, confidence: float | None = None) -> int:
    """The least number of good frames for a rate: `ceil(1 / rate) - 1`, or what a confidence takes."""
    if confidence is None:
        return math.ceil(1 / _exact(rate)) - 1
    needed = max(math.ceil(math.log(1 - confidence) / math.log1p(-rate)) - 1, 1)
    while at_most(needed, rate, 0) > 1 - confidence:  # rounding may have left it one short
        needed += 1
    return needed


def least_rate(frames: int, confidence: float | None = None) -> float:
    """The least false-alarm rate for which so many good frames are enough."""
    return 1 / (frames + 1) if confidence is None else -math.expm1(math.log(1 - confidence) / frames)


def best_rate(frames: int, confidence: float | None = None) -> float:
    """The least rate in floating point that `bound` takes so many frames for: `least_rate`, rounded up as need be."""
    rate = least_rate(frames, confidence)
    while rate < 1 and frames_needed(rate, confidence) > frames:
        rate = math.nextafter(rate, 1) if confidence is None else rate * (1 + 1e-9)
    return rate


def _check(rate: float, confidence: float | None) -> None:
    if not 0 < rate < 1:
        raise CalibrationError(f"false-alarm rate {rate} is not between 0 and 1")
    if confidence is not None and not 0.5 <= confidence < 1:
        raise CalibrationError(f"confidence {confidence} is not from 0.5 to below 1")


def _exact(rate: float) -> Fraction:
    """The rate as it was written: 1000 * 0.001 must be 1."""
    return Fraction(repr(rate))


def _offered(frames: int, confidence: float | None) -> str:
    """The least rate that so many frames are enough for, in two digits: what is printed must do when it is typed in."""
    least = least_rate(frames, confidence)
    unit = 10.0 ** (math.floor(math.log10(least)) - 1)
    steps = math.floor(least / unit)
    while (rate := float(f"{steps * unit:.3g}")) < 1 and frames_needed(rate, confidence) > frames:
        steps += 1
    return f"these are enough for {rate:g}" if rate < 1 else "these are enough for no rate"
