"""Thresholds by what references reach out of sample."""

from __future__ import annotations

import re

import numpy as np

from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.detect.learning.conformal import Bound, best_rate, bound
from kanoclip.runtime.detect.learning.spread import lowered
from kanoclip.runtime.detect.reference.memory import ReferenceMemory
from kanoclip.runtime.types import RegionOfInterest

RATE = 0.05
"""Share of good frames that may be called anomalous, where no one says otherwise."""
_ORIGIN = re.compile(r"(?:conformal|spread): false-alarm rate (\S+) by \d+ references, each out of sample")


def limits_by(
    memory: ReferenceMemory,
    before: Thresholds,
    roi: RegionOfInterest | None,
    engine: str,
    created: str,
    rate: float = RATE,
) -> Thresholds:
    """Both thresholds by a memory's values out of sample.

    Args:
        memory: With at least one reference.
        before: The class's until now.
        roi: Where frames are scored; None for everywhere.
        engine: The name of what computed the values.
        created: Time in UTC.
        rate: Share of good frames that may be called anomalous. Where the references are too few for it, it is the
            best that they allow.

    Raises:
        CalibrationError: Too many references reach the largest value.
    """
    counted = memory.counted
    count = int(counted.sum())
    found = bound(count, max(rate, best_rate(count)))
    values = memory.loo_scores[counted].astype(np.float64), memory.loo_peaks[counted].astype(np.float64)
    highest = found.threshold(values[0])
    image = lowered(highest, values[0], found, rate)
    pixel = lowered(found.threshold(values[1]), values[1], found, rate)
    return worded(image, pixel, found, before, roi, engine, created, bounded=image == highest)


def worded(
    image: float,
    pixel: float,
    found: Bound,
    before: Thresholds,
    roi: RegionOfInterest | None,
    engine: str,
    created: str,
    *,
    bounded: bool = True,
) -> Thresholds:
    """Thresholds by references as a manifest has them; the smallest area stays. See `spread` for those not bounded."""
    sure = "" if found.confidence is None else f" with confidence {found.confidence:g}"
    inside = "" if roi is None else " inside of a region of interest"
    kind = "conformal" if bounded else "spread"
    return Thresholds(
        image=image,
        pixel=pixel,
        min_area=before.min_area,
        origin=f"{kind}: false-alarm rate {found.rate:.4g}{sure} by {found.frames} references, each out of sample"
        f"{inside}, {engine}, {created}",
        roi=None if roi is None else roi.digest(),
    )


def rate_of(thresholds: Thresholds) -> float | None:
    """The rate that thresholds by references were set for, RATE at most; None for any other thresholds.

    Those by more frames than the memory has, with a confidence or by hand are better than what one more reference
    would make of them.
    """
    said = _ORIGIN.match(thresholds.origin)
    return None if said is None else min(float(said[1]), RATE)
