"""The histogram, scored by its pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.ops.calibration.plot import HEIGHT, WIDTH, Histogram, draw_histograms, write_png

NONE = np.empty(0)


def pixels(picture, red):
    """How many are clearly reddish, or clearly bluish."""
    blue_over_red = picture[:, :, 0].astype(int) - picture[:, :, 2]
    return int(((blue_over_red < -60) if red else (blue_over_red > 60)).sum())


def columns_of(picture, red):
    difference = picture[:, :, 0].astype(int) - picture[:, :, 2]
    hit = (difference < -60) if red else (difference > 60)
    return np.flatnonzero(hit[60:300].any(axis=0))


def test_good_left_bad_right_and_the_threshold_between():
    random = np.random.default_rng(0)
    image = draw_histograms([Histogram("score", random.uniform(0, 0.4, 500), random.uniform(0.8, 1, 30), 0.6)])
    assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8
    good, bad = columns_of(image, red=False), columns_of(image, red=True)
    dark = np.flatnonzero((image[60:310] < 60).all(axis=2).mean(axis=0) > 0.9)
    assert good.max() < dark.min() and dark.max() < bad.min()
    assert dark.mean() == pytest.approx(64 + 0.6 * (WIDTH - 88), abs=30)


def test_few_bad_frames_are_seen_beside_many_good_ones():
    image = draw_histograms([Histogram("score", np.linspace(0, 0.4, 10_000), np.array([0.9]), 0.5)])
    assert pixels(image[40:], red=True) > 1000


def test_without_bad_frames_nothing_is_red():
    assert pixels(draw_histograms([Histogram("score", np.linspace(0, 1, 50), NONE, 0.99)]), red=True) == 0


@pytest.mark.parametrize("values", [[0.5], [0.0, 0.0], [0.0, 1.0]])
def test_values_without_a_range(values):
    panels = [Histogram("score", np.array(values), NONE, values[0])] * 2
    assert draw_histograms(panels).shape == (2 * HEIGHT, WIDTH, 3)


def test_the_file(tmp_path):
    image = draw_histograms([Histogram("score", np.linspace(0, 1, 50), NONE, 0.9)])
    write_png(tmp_path / "p.png", image)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "p.png")), image)
    with pytest.raises(SinkError, match=r"none/p.png: cannot be written \(No such file"):
        write_png(tmp_path / "none" / "p.png", image)
