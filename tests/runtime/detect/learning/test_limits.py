"""Thresholds by references: just above the highest of them, at the best rate that there is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from references import memory

from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.detect.learning.limits import RATE, limits_by, rate_of
from kanoclip.runtime.errors import CalibrationError
from kanoclip.runtime.types import RegionOfInterest

BEFORE = Thresholds(0.5, 0.4, 7, "measured")


def at(values):
    values = np.array(values, np.float32)
    return replace(memory(4), loo_scores=values, loo_peaks=values / 2, names=tuple(map(str, values)))


def limits(values, roi=None, **options):
    return limits_by(at(values), BEFORE, roi, "onnxruntime-cpu", "2026-01-02T03:04:05+00:00", **options)


def test_few_references_give_the_best_rate_that_they_can():
    found = limits([0.1, 0.3, 0.2])
    assert found.image == float(np.nextafter(np.float32(0.3), np.float32(1)))
    assert found.pixel == float(np.nextafter(np.float32(0.15), np.float32(1)))
    assert found.min_area == 7 and found.roi is None
    assert found.origin == (
        "conformal: false-alarm rate 0.25 by 3 references, each out of sample, onnxruntime-cpu, "
        "2026-01-02T03:04:05+00:00"
    )


def test_many_references_keep_the_rate():
    values = np.linspace(0.1, 0.5, 39)
    assert limits(values).image == pytest.approx(values[37], abs=1e-6)  # (1 + 1) / 40 is 0.05: one may lie above
    assert limits(values, rate=0.1).image == pytest.approx(values[35], abs=1e-6)


def test_the_region_is_noted():
    roi = RegionOfInterest("left.json", keep=(((0.0, 0.0), (0.5, 0.0), (0.5, 1.0)),))
    found = limits([0.1, 0.2], roi)
    assert found.roi == roi.digest() and "inside of a region of interest" in found.origin


def test_no_threshold_is_above_the_largest_value():
    with pytest.raises(CalibrationError, match="reach the largest value"):
        limits([0.1, 1.0])


@pytest.mark.parametrize(
    ("origin", "rate"),
    [
        (limits([0.1, 0.2]).origin, RATE),
        (limits(np.linspace(0.1, 0.5, 99), rate=0.01).origin, 0.01),
        ("conformal: false-alarm rate 0.01 by 2000 good frames, 2026", None),
        ("conformal: false-alarm rate 0.01 with confidence 0.95 by 20 references, each out of sample, x", None),
        ("chosen while a stream ran, 2026", None),
    ],
)
def test_whose_thresholds_one_more_reference_may_change(origin, rate):
    assert rate_of(replace(BEFORE, origin=origin)) == rate
