"""Frames through the real detector and stream."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.settings.settings import Decision, Settings
from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.ops.calibration.gather import EveryNth, gather
from kanoclip.runtime.sources import BaseSource
from kanoclip.runtime.types import BadFrame, Frame, RegionOfInterest

LEFT = RegionOfInterest("left.json", keep=(((0.0, 0.0), (0.45, 0.0), (0.45, 1.0), (0.0, 1.0)),))


class Pictures(BaseSource):
    """Grey ones of level 0, 1, 2 ...; their right halves are white."""

    name, live, fps, root = "pictures", False, 25.0, None

    def __init__(self, count, bad=(), error_at=None):
        self.count, self.bad, self.error_at, self.closed = count, bad, error_at, 0

    def frames(self):
        for index in range(self.count):
            if index == self.error_at:
                raise SourceError("images: unplugged")
            if index in self.bad:
                yield BadFrame(index, f"{index}.png", "broken")
                continue
            image = np.full((32, 32, 3), index, np.uint8)
            image[:, 16:] = 255
            yield Frame(index, f"{index}.png", 0.0, image, 0.0)

    def close(self):
        self.closed += 1


@pytest.fixture
def load(toy_bundle):
    def load(**decision):
        return Detector.load(toy_bundle, device="cpu", threads=1, settings=Settings(flags=Decision(**decision)))

    return load


def test_values_in_order_and_bad_images_counted(load):
    source = Pictures(20, bad={3, 4})
    with load() as detector:
        found = gather(source, detector, None)
    np.testing.assert_array_equal(found.scores, np.ones(18))
    assert (found.skipped, found.interrupted, source.closed) == (2, False, 1)


def test_the_region_of_interest_bounds_both(load):
    with load(roi=LEFT) as detector:
        found = gather(Pictures(20), detector, None)
    levels = np.arange(20) / 255
    np.testing.assert_allclose(found.peaks, levels, atol=1e-6)
    # The toy's score is max M alone; what is lost of it is halved, as in eq. 12.
    np.testing.assert_allclose(found.scores, (1 + levels) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("step", "most", "expected"), [(1, 5, [0, 1, 2, 3, 4]), (7, None, [0, 7, 14, 21]), (7, 2, [0, 7])]
)
def test_every_nth_frame_and_a_limit(load, step, most, expected):
    source = EveryNth(Pictures(25), step)
    with load(roi=LEFT) as detector:
        found = gather(source, detector, None, max_frames=most)
    np.testing.assert_allclose(found.peaks * 255, expected, atol=1e-4)


def test_every_nth_tells_its_length_and_rate():
    source = EveryNth(Pictures(25), 7)
    assert (source.count, source.name, source.live, source.root) == (4, "pictures", False, None)
    assert source.fps == pytest.approx(25 / 7)


def test_a_source_that_fails_is_closed(load):
    source = Pictures(20, error_at=5)
    with load() as detector, pytest.raises(SourceError, match="unplugged"):
        gather(source, detector, None)
    assert source.closed == 1
    assert not any(thread.name.startswith("kanoclip-") for thread in threading.enumerate())
