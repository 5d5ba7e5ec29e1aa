"""From the values of good frames, and perhaps of bad ones, to thresholds and to what is known about them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.detect.alarm import EVERY_FRAME, Alarm, AlarmRule
from kanoclip.runtime.detect.learning.binomial import clopper_pearson
from kanoclip.runtime.detect.learning.conformal import Bound, bound, frames_needed
from kanoclip.runtime.ops.calibration.dependence import Dependence, dependence
from kanoclip.runtime.ops.calibration.gather import Values

INTERVAL = 0.95
"""Confidence of the intervals that are reported."""


@dataclass(frozen=True)
class Share:
    """How many of some frames reach a threshold.

    Attributes:
        hits: How many do.
        frames: Of how many.
        low: Lower end of the share's exact interval (Clopper-Pearson, `INTERVAL`).
        high: Its upper end.
    """

    hits: int
    frames: int
    low: float
    high: float

    @classmethod
    def of(cls, values: npt.NDArray[np.float64], threshold: float) -> Share:
        """Counts the values at or above a threshold; there must be some."""
        hits = int((values >= threshold).sum())
        return cls(hits, len(values), *clopper_pearson(hits, len(values), INTERVAL))


@dataclass(frozen=True)
class Setting:
    """One threshold and what is known about it.

    Attributes:
        threshold: In [0, 1], a float32 number.
        dependence: How much the good frames' values resemble their neighbours.
        caught: How many bad frames reach it; None without any.
    """

    threshold: float
    dependence: Dependence
    caught: Share | None


@dataclass(frozen=True)
class Calibration:
    """What good frames say.

    Attributes:
        bound: What is promised, for each of the two thresholds by itself.
        image: Of the score: at or above it a frame is anomalous.
        pixel: Of the map: at or above it a pixel belongs to a region.
        alarms: How often the good frames, in their order, raise the stream's alarm.
        skipped: Good images that could not be read.
    """

    bound: Bound
    image: Setting
    pixel: Setting
    alarms: int
    skipped: int

    @property
    def effective(self) -> float:
        """How many independent frames the good ones are worth, by whichever value tells less."""
        return min(self.image.dependence.effective, self.pixel.dependence.effective)

    @property
    def dependent(self) -> bool:
        """Whether the frames resemble their neighbours so much that the bound does not hold as it is stated."""
        return self.image.dependence.strong or self.pixel.dependence.strong

    def warnings(self, every: int) -> list[str]:
        """What stands against the promise, each in one line.

        Args:
            every: Of how many frames one was taken.
        """
        warnings = []
        if self.dependent:
            spacing = every * max(self.image.dependence.spacing, self.pixel.dependence.spacing)
            needed = frames_needed(self.bound.rate, self.bound.confidence)
            short = f"; the rate takes {needed} independent ones" if self.effective < needed else ""
            warnings.append(
                f"neighbouring frames resemble each other: {self.bound.frames} of them are worth about "
                f"{self.effective:.0f} independent ones{short}. The bound takes frames that are exchangeable with "
                f"those to come: spread them over more time, with --every {spacing} or so"
            )
        if self.skipped:
            warnings.append(f"{self.skipped} good images could not be read and are not in it")
        return warnings


def calibrate(
    good: Values, rate: float, confidence: float | None, rule: AlarmRule = EVERY_FRAME, bad: Values | None = None
) -> Calibration:
    """Sets both thresholds by good frames; bad ones only tell what is caught.

    Args:
        good: Of frames that no one would call anomalous.
        rate: Share of good frames that may reach each threshold.
        confidence: With which it holds; None for the average over calibrations.
        rule: When the stream's alarm is raised.
        bad: Of frames that should be found.

    Raises:
        CalibrationError: The good frames are too few, or reach the largest value.
    """
    promised = bound(len(good.scores), rate, confidence)

    def set_by(values: npt.NDArray[np.float64], to_find: npt.NDArray[np.float64] | None) -> Setting:
        threshold = promised.threshold(values)
        caught = Share.of(to_find, threshold) if to_find is not None and len(to_find) else None
        return Setting(threshold, dependence(values), caught)

    image = set_by(good.scores, None if bad is None else bad.scores)
    pixel = set_by(good.peaks, None if bad is None else bad.peaks)
    alarm = Alarm(rule)
    states = [False] + [alarm.update(bool(score >= image.threshold)) for score in good.scores]
    raised = sum(now and not before for before, now in pairwise(states))
    return Calibration(promised, image, pixel, raised, good.skipped)
