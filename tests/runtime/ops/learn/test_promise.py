"""Thresholds from values out of sample, and the best rate where references are too few."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from references import memory

from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.detect.learning.conformal import best_rate, bound
from kanoclip.runtime.errors import CalibrationError
from kanoclip.runtime.ops.learn.promise import promise, thresholds_of
from kanoclip.runtime.types import RegionOfInterest

BEFORE = Thresholds(0.5, 0.6, 7, "before")


def of(scores):
    scores = np.asarray(scores, np.float32)
    return replace(memory(1), loo_scores=scores, loo_peaks=scores, names=tuple(map(str, range(len(scores)))))


@given(frames=st.integers(1, 500), confidence=st.sampled_from([None, 0.5, 0.9, 0.95]))
def test_the_best_rate_is_accepted(frames, confidence):
    rate = best_rate(frames, confidence)
    assert bound(frames, rate, confidence).allowed == 0
    if confidence is None:
        assert rate == pytest.approx(1 / (frames + 1), rel=1e-9)


@pytest.mark.parametrize("count", [1, 3, 9, 18])
def test_too_few_for_the_rate(count):
    found = promise(of(np.linspace(0.1, 0.4, count)), 0.05, None)
    assert found.limited and found.calibration.bound.rate == pytest.approx(1 / (count + 1))
    assert found.calibration.image.threshold == pytest.approx(0.4 if count > 1 else 0.1, abs=1e-6)
    assert any("that takes 19" in line for line in found.warnings())


def test_enough():
    found = promise(of(np.random.default_rng(0).uniform(0.1, 0.4, 60)), 0.05, None)
    assert not found.limited and found.calibration.bound.allowed == 2
    assert not any("enough" in line for line in found.warnings())


def test_a_single_reference_is_a_first_guess():
    assert any("single reference" in line for line in promise(of([0.3]), 0.05, None).warnings())


def test_a_reference_that_cannot_be_passed_is_named():
    with pytest.raises(CalibrationError, match=r"2 reaches the largest score.*--drop-outliers"):
        promise(of([0.1, 0.2, 1.0]), 0.05, None)


def test_what_goes_into_the_manifest():
    found = promise(of(np.linspace(0.1, 0.4, 30)), 0.05, None)
    roi = RegionOfInterest("part.json", keep=(((0, 0), (1, 0), (0, 1)),))
    made = thresholds_of(found, BEFORE, roi, "onnxruntime-cpu", "2026-01-02T03:04:05+00:00")
    assert made.min_area == 7 and made.roi == roi.digest() and "30 references" in made.origin
    assert thresholds_of(found, BEFORE, None, "x", "y").roi is None


@pytest.mark.parametrize(("confidence", "most"), [(0.5, 0.05), (None, 0.07)])
def test_values_of_exchangeable_frames_keep_the_rate(confidence, most):
    """A bound with a confidence; an estimate without one, where the bound would be the largest value."""
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(600):
        scores = rng.beta(2, 5, 21)
        rates.append(scores[20] >= promise(of(scores[:20]), 0.05, confidence).calibration.image.threshold)
    assert np.mean(rates) < most + 3 * np.sqrt(most * (1 - most) / 600)


def test_one_odd_reference_does_not_set_the_threshold():
    scores = [*np.linspace(0.2, 0.3, 19), 0.9]
    found, strict = promise(of(scores), 0.05, None), promise(of(scores), 0.05, 0.5)
    assert strict.highest is None and strict.calibration.image.threshold > 0.9
    assert found.highest == strict.calibration.image.threshold
    assert 0.3 < found.calibration.image.threshold < 0.7
    assert found.calibration.pixel.threshold == found.calibration.image.threshold
    assert any("estimate by the spread of 20 references" in line for line in found.warnings())
    assert thresholds_of(found, BEFORE, None, "x", "y").origin.startswith("spread: ")


def test_the_spread_never_raises_the_threshold():
    scores = [0.1] * 10 + [0.4] * 10
    found = promise(of(scores), 0.05, None)
    assert found.highest is None and found.calibration.image.threshold == pytest.approx(0.4, abs=1e-6)
