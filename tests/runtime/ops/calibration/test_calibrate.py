"""From values to thresholds and what is said about them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.detect.alarm import EVERY_FRAME, AlarmRule
from kanoclip.runtime.errors import CalibrationError
from kanoclip.runtime.ops.calibration.calibrate import calibrate
from kanoclip.runtime.ops.calibration.gather import Values
from kanoclip.runtime.ops.calibration.report import as_json, sentences

BEFORE = Thresholds(0.5, 0.6, 0, "before")


def values(scores, peaks=None, skipped=0):
    scores = np.asarray(scores, np.float64)
    return Values(scores, scores / 2 if peaks is None else np.asarray(peaks, np.float64), skipped, False)


def good(count=200, seed=0):
    random = np.random.default_rng(seed)
    return values(random.uniform(0, 0.5, count), random.uniform(0, 0.4, count))


def test_both_thresholds_are_set_by_their_own_values():
    frames = good()
    found = calibrate(frames, 0.02, None)
    assert found.bound.allowed == 3
    for setting, used in ((found.image, frames.scores), (found.pixel, frames.peaks)):
        assert sorted(used)[-4] < setting.threshold <= sorted(used)[-3]
        assert setting.threshold == pytest.approx(sorted(used)[-4], abs=1e-6)
        assert setting.caught is None
    assert not found.dependent and found.warnings(1) == []


def test_bad_frames_change_nothing_and_are_counted():
    bad = values([0.1, 0.495, 0.9, 1.0], [0.0, 0.1, 0.395, 0.9])
    without, found = calibrate(good(), 0.02, 0.9), calibrate(good(), 0.02, 0.9, bad=bad)
    assert (found.image.threshold, found.pixel.threshold) == (without.image.threshold, without.pixel.threshold)
    image, pixel = found.image.caught, found.pixel.caught
    assert (image.hits, image.frames) == (int((bad.scores >= found.image.threshold).sum()), 4)
    assert pixel.hits == int((bad.peaks >= found.pixel.threshold).sum())
    assert 0 < image.low < image.hits / 4 < image.high <= 1


def test_the_alarm_counts_raisings_in_order():
    scores = [0.1] * 100 + [0.9, 0.8, 0.1, 0.1, 0.7] + [0.1] * 95
    found = calibrate(values(scores), 0.02, None)
    assert found.bound.allowed == 3  # the three that are high
    assert found.alarms == 2
    assert calibrate(values(scores), 0.02, None, AlarmRule(2, 3)).alarms == 1
    assert calibrate(values(scores), 0.02, None, AlarmRule(3, 3)).alarms == 0


def test_too_few_frames():
    with pytest.raises(CalibrationError, match=r"20 good frames are too few .*rate of 0\.02: it takes 49"):
        calibrate(good(20), 0.02, None)


def test_frames_of_a_video_are_worth_fewer_than_they_are():
    frames = good(400)
    video = values(frames.scores.repeat(10), frames.peaks.repeat(10))
    found = calibrate(video, 0.001, None)
    (warning,) = found.warnings(every=3)
    assert found.dependent and 250 < found.effective < 600
    assert "these 4000 count as about" in warning and "the rate takes 999" in warning
    spacing = int(warning.split("--every ")[1].split()[0])
    assert 3 * 7 <= spacing <= 3 * 14
    assert "the rate takes" not in calibrate(video, 0.1, None).warnings(1)[0]  # these are enough for that one
    images = calibrate(video, 0.001, None, in_sequence=False)  # files of a folder, in whatever order
    assert not images.dependent and images.warnings(1) == []


def test_skipped_images_are_told():
    (warning,) = calibrate(values(good().scores, skipped=2), 0.02, None).warnings(1)
    assert "2 good images could not be read" in warning


def test_sentences_and_json_hold_the_same_figures():
    bad = values([0.1, 0.6], [0.1, 0.6])
    found = calibrate(good(), 0.02, 0.95, AlarmRule(2, 3), bad)
    said = sentences(found, BEFORE, AlarmRule(2, 3))
    assert f"{found.image.threshold:.6f} (was 0.500000)" in said[0] and "(was 0.600000)" in said[0]
    assert "200 good frames" in said[1] and "in 95 of 100 calibrations" in said[1]
    assert any(line.startswith("alarm 2/3: ") and "no more often" in line for line in said)
    assert "1 of 2 bad frames reach the image threshold: 50.0% (95% interval 1.3% to 98.7%)" in said
    told = json.loads(json.dumps(as_json(found, BEFORE, AlarmRule(2, 3)), allow_nan=False))
    assert told["image"]["threshold"] == found.image.threshold
    assert told["image"]["caught"]["hits"] == 1 and told["confidence"] == 0.95
    assert told["probability_rate_is_kept"] >= 0.95 and told["rate_with_95"] <= 0.02
    plain = sentences(calibrate(good(), 0.02, None), BEFORE, EVERY_FRAME)
    assert len(plain) == 3 and "on average over calibrations" in plain[1]
