"""Thresholds by values out of sample, at the rate that was requested or the best that the references allow."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.detect.learning.conformal import best_rate, frames_needed
from kanoclip.runtime.detect.learning.limits import worded
from kanoclip.runtime.detect.learning.spread import lowered
from kanoclip.runtime.detect.reference.memory import ReferenceMemory
from kanoclip.runtime.errors import CalibrationError
from kanoclip.runtime.ops.calibration.calibrate import Calibration, Share, calibrate, caught
from kanoclip.runtime.ops.calibration.gather import Values
from kanoclip.runtime.types import RegionOfInterest


@dataclass(frozen=True)
class Promise:
    """Thresholds and what they promise.

    Attributes:
        calibration: As `kanoclip-calibrate` has it, by values out of sample.
        requested: The false-alarm rate that was wanted; that of the calibration is larger where frames are too few.
        needed: How many references the requested rate takes.
        highest: The image threshold that keeps the rate whatever the scores' distribution, where the one that is used
            lies below it; else None. See `spread`.
    """

    calibration: Calibration
    requested: float
    needed: int
    highest: float | None = None

    @property
    def limited(self) -> bool:
        """Whether the references are too few for the requested rate."""
        return self.calibration.bound.rate > self.requested

    def warnings(self) -> list[str]:
        """What stands against the promise, each in one line."""
        found = list(self.calibration.warnings(1))
        frames, rate = self.calibration.bound.frames, self.calibration.bound.rate
        if self.limited:
            found.insert(
                0,
                f"{frames} reference{'s are' if frames > 1 else ' is'} enough for a false-alarm rate of {rate:.2g} at "
                f"best, which is used instead of {self.requested:g}: that takes {self.needed}",
            )
        if self.highest is not None:
            found.insert(
                0,
                f"the rate of {rate:.2g} is an estimate by the spread of {frames} references; a threshold of "
                f"{self.highest:.6f} would keep it whatever comes: give --confidence 0.5, or more references",
            )
        if frames == 1:
            found.insert(0, "the values of a single reference are within itself: its threshold is a first guess")
        return found


def promise(
    memory: ReferenceMemory,
    rate: float,
    confidence: float | None,
    skipped: int = 0,
    *,
    in_sequence: bool = True,
    bad: npt.NDArray[np.float64] | None = None,
    catch: float | None = None,
) -> Promise:
    """Sets both thresholds by a memory's values out of sample.

    Args:
        memory: With at least one reference.
        rate: Share of good frames that may be called anomalous.
        confidence: With which it holds; None for the average over calibrations.
        skipped: Good images that could not be read.
        in_sequence: The references came one after the other, as a camera's frames do.
        bad: Scores of bad frames by this memory.
        catch: Share of them that is to be found, whatever the rate.

    Raises:
        CalibrationError: Too many references reach the largest value, or there are no bad frames to catch.
    """
    counted = memory.counted
    count = int(counted.sum())
    possible = max(rate, best_rate(count, confidence))
    scores, peaks = memory.loo_scores[counted].astype(np.float64), memory.loo_peaks[counted].astype(np.float64)
    values = Values(scores, peaks, skipped, False)
    to_find = None if bad is None else Values(bad, np.empty(0), 0, interrupted=False)
    if catch is not None:
        found = calibrate(values, possible, confidence, bad=to_find, in_sequence=in_sequence, catch=catch)
        return Promise(found, found.bound.rate, count)
    try:
        found = calibrate(values, possible, confidence, bad=to_find, in_sequence=in_sequence)
    except CalibrationError as error:
        worst = memory.names[int(np.where(counted, memory.loo_scores, 0).argmax())]
        raise CalibrationError(
            f"{worst} reaches the largest score there is, by a memory of the others: look at it, and take it out, or "
            "use more good frames; --drop-outliers leaves out what is unlike the others"
        ) from error
    image, pixel = (
        replace(setting, threshold=lowered(setting.threshold, reached, found.bound, rate))
        for setting, reached in ((found.image, scores), (found.pixel, peaks))
    )
    highest = found.image.threshold if image.threshold < found.image.threshold else None
    if bad is not None and len(bad):
        image = replace(image, caught=Share.of(bad, image.threshold))
    return Promise(replace(found, image=image, pixel=pixel), rate, frames_needed(rate, confidence), highest)


def thresholds_of(
    found: Promise, before: Thresholds, roi: RegionOfInterest | None, engine: str, created: str
) -> Thresholds:
    """What goes into the manifest; the smallest area stays."""
    calibration = found.calibration
    limits = calibration.image.threshold, calibration.pixel.threshold
    chosen = worded(*limits, calibration.bound, before, roi, engine, created, bounded=found.highest is None)
    if calibration.catch is None or calibration.image.caught is None:
        return chosen
    said = caught(calibration.catch, calibration.image.caught, calibration.bound)
    return replace(chosen, origin=f"{said}, references out of sample, {engine}, {created}")
