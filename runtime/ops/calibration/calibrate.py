"""From the values of good frames, and perhaps of bad ones, to thresholds and to what is known about them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.detect.alarm import EVERY_FRAME, Alarm, AlarmRule
from kanoclip.runtime.detect.learning.binomial import clopper_pearson
from kanoclip.runtime.detect.learning.conformal import Bound, bound, frames_needed
from kanoclip.runtime.errors import CalibrationError
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
        in_sequence: The frames came one after the other, as a camera's do.
        catch: The share of the bad frames that the image threshold was to reach; None where the rate set it.
    """

    bound: Bound
    image: Setting
    pixel: Setting
    alarms: int
    skipped: int
    in_sequence: bool = True
    catch: float | None = None

    @property
    def effective(self) -> float:
        """How many independent frames the good ones are worth, by whichever value tells less."""
        return min(self.image.dependence.effective, self.pixel.dependence.effective)

    @property
    def dependent(self) -> bool:
        """Whether frames in sequence resemble their neighbours so much that the bound does not hold as it is stated."""
        return self.in_sequence and (self.image.dependence.strong or self.pixel.dependence.strong)

    def warnings(self, every: int) -> list[str]:
        """What stands against the promise, each in one line.

        Args:
            every: Of how many frames one was taken.
        """
        warnings = []
        if self.dependent:
            spacing = every * max(self.image.dependence.spacing, self.pixel.dependence.spacing)
            needed = frames_needed(self.bound.rate, self.bound.confidence)
            short = f", and the rate takes {needed}" if self.effective < needed else ""
            warnings.append(
                f"neighbouring frames look alike: these {self.bound.frames} count as about {self.effective:.0f} "
                f"separate ones{short}. Take them over a longer time, one of {spacing} or so: --every {spacing}"
            )
        if self.skipped:
            warnings.append(f"{self.skipped} good images could not be read and are not in it")
        return warnings


def calibrate(
    good: Values,
    rate: float,
    confidence: float | None,
    rule: AlarmRule = EVERY_FRAME,
    bad: Values | None = None,
    *,
    in_sequence: bool = True,
    catch: float | None = None,
) -> Calibration:
    """Sets both thresholds by good frames; bad ones only tell what is caught, unless a share of them is to be.

    Args:
        good: Of frames that no one would call anomalous.
        rate: Share of good frames that may reach each threshold.
        confidence: With which it holds; None for the average over calibrations.
        rule: When the stream's alarm is raised.
        bad: Of frames that should be found.
        in_sequence: The good frames came one after the other, as a camera's do.
        catch: Share of the bad frames that is to be found: it sets the image threshold, and `rate` is what that costs.

    Raises:
        CalibrationError: The good frames are too few, or reach the largest value; or there are no bad frames to catch,
            or not without calling all good ones anomalous.
    """
    at = None
    if catch is None:
        promised = bound(len(good.scores), rate, confidence)
    else:
        at = reached_by(_scores_of(bad), catch)
        promised = _cost(good.scores, at, confidence, catch)

    def set_by(
        values: npt.NDArray[np.float64], to_find: npt.NDArray[np.float64] | None, chosen: float | None
    ) -> Setting:
        threshold = promised.threshold(values) if chosen is None else chosen
        caught = Share.of(to_find, threshold) if to_find is not None and len(to_find) else None
        return Setting(threshold, dependence(values), caught)

    image = set_by(good.scores, None if bad is None else bad.scores, at)
    pixel = set_by(good.peaks, None if bad is None else bad.peaks, None)
    alarm = Alarm(rule)
    states = [False] + [alarm.update(bool(score >= image.threshold)) for score in good.scores]
    raised = sum(now and not before for before, now in pairwise(states))
    return Calibration(promised, image, pixel, raised, good.skipped, in_sequence, catch)


def reached_by(bad: npt.NDArray[np.float64], share: float) -> float:
    """The highest float32 threshold that a share of bad frames reaches.

    Args:
        bad: Their scores, in [0, 1], at least one.
        share: Of them, in (0, 1].
    """
    ordered = np.sort(bad)[::-1]
    value = ordered[math.ceil(share * len(ordered) - 1e-9) - 1]
    below = np.float32(value)
    return float(below if float(below) <= value else np.nextafter(below, np.float32(-1)))


def caught(catch: float, found: Share, cost: Bound) -> str:
    """How thresholds came about that bad frames set, for a manifest."""
    return f"catch: {catch:g} of {found.frames} bad frames; {cost.allowed} of {cost.frames} good ones reach it"


def _scores_of(bad: Values | None) -> npt.NDArray[np.float64]:
    if bad is None or not len(bad.scores):
        raise CalibrationError("there are no bad frames to catch: name some with --bad, or a false-alarm rate")
    return bad.scores


def _cost(good: npt.NDArray[np.float64], threshold: float, confidence: float | None, catch: float) -> Bound:
    """What is known of the false alarms at a threshold that bad frames set: how many good frames reach it."""
    reach = int((good >= threshold).sum())
    if reach == len(good):
        raise CalibrationError(
            f"to catch {catch:.0%} of the bad frames, all {reach} good ones would be called anomalous: catch less, or "
            "let kanoclip-learn learn the part first"
        )
    found = Bound((reach + 1) / (len(good) + 1), None, len(good), reach)
    return found if confidence is None else replace(found, rate=found.rate_within(confidence), confidence=confidence)
