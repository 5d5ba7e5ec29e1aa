"""The test pattern: the same image for the same number, at its rate, and a defect where one was asked for."""

from __future__ import annotations

import time
from itertools import islice

import numpy as np
import pytest

from kanoclip.runtime.bundle.bundle import find_bundle
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.sources import BaseSource, TestPatternSource, is_endless, open_source


def test_it_is_the_same_for_the_same_seed_and_moves():
    one, again, other = (
        TestPatternSource(f"test://?width=320&height=180&defect=0.5&seed={seed}") for seed in (1, 1, 2)
    )
    for index in (0, 1, 77):
        np.testing.assert_array_equal(one.image_at(index), again.image_at(index))
    assert (one.image_at(0) != other.image_at(0)).any() and (one.image_at(0) != one.image_at(30)).any()
    assert one.image_at(0).shape == (180, 320, 3) and one.image_at(0).dtype == np.uint8


def test_it_comes_at_its_rate_until_it_is_interrupted():
    source = open_source("test://?width=64&height=64&fps=50")
    assert isinstance(source, TestPatternSource) and type(source).interrupt is not BaseSource.interrupt
    assert (source.live, source.count, source.fps, source.name) == (
        True,
        None,
        50.0,
        "test://?width=64&height=64&fps=50",
    )
    frames = source.frames()
    next(frames)
    started = time.monotonic()
    seen = list(islice(frames, 25))
    assert 0.45 < time.monotonic() - started < 2
    assert [frame.index for frame in seen] == list(range(1, 26))
    source.interrupt()
    assert list(frames) == []
    assert is_endless("test://")


def test_defects_are_as_frequent_as_asked_for():
    clean = TestPatternSource("test://?width=128&height=72")
    assert not any(clean.has_defect(index) for index in range(0, 1200, 40))
    often = TestPatternSource("test://?width=128&height=72&defect=1")
    assert np.mean([often.has_defect(index) for index in range(0, 4800, 40)]) > 0.8
    some = TestPatternSource("test://?width=128&height=72&defect=0.2&seed=5")
    assert 0.1 < np.mean([some.has_defect(index) for index in range(0, 24000, 60)]) < 0.5


def test_the_built_in_bundle_tells_them_apart(tmp_path):
    """What somebody without a camera sees: cloth far below the threshold, most defects above it."""
    source = TestPatternSource("test://?width=640&height=360&defect=0.5&seed=3")
    with Detector.load(find_bundle(None, tmp_path), backend="onnxruntime", threads=1) as detector:
        good, bad = [], []
        for index in range(0, 1440, 120):
            detection = detector(source.image_at(index))
            (bad if source.has_defect(index) else good).append(detection.is_anomalous)
    assert len(good) > 2 and len(bad) > 2
    assert not any(good) and np.mean(bad) > 0.6


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("test://?width=8", "width must be a whole number from 64 to 7680"),
        ("test://?defect=1.5", "defect must be a number from 0 to 1"),
        ("test://?fps=0", "fps must be a number"),
        ("test://?fps=1e3", "fps must be a number"),
        ("test://?colour=red", "unknown option 'colour'; known are width, height, seed, fps, defect, speed"),
        ("test://?width", "options are written"),
    ],
)
def test_what_is_refused(spec, said):
    with pytest.raises(SourceError, match=said):
        open_source(spec)
