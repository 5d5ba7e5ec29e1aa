"""What an image looks like."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from kanoclip.runtime.detect.preprocess import resize
from kanoclip.runtime.ops.score.measures import MEAN_SIDE, grey_thumbnail, measure

NOISE = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)


def measured(picture):
    return measure(picture, resize(picture, 64, 64))


def test_colours_and_brightness():
    flat = measured(np.full((90, 70, 3), (255, 0, 51), np.uint8))  # BGR
    assert (flat.blue, flat.green, flat.red) == pytest.approx((1, 0, 0.2))
    assert flat.brightness == pytest.approx(0.114 + 0.299 * 0.2, abs=2e-3)
    assert flat.contrast == flat.sharpness == 0


def test_blur_is_seen_at_the_images_own_size():
    """At the model's size both images are nearly the same."""
    smooth = cv2.GaussianBlur(NOISE, (0, 0), 6)
    fine = cv2.addWeighted(smooth, 0.9, NOISE, 0.1, 0)
    blurred = cv2.GaussianBlur(fine, (0, 0), 2)
    assert measured(fine).sharpness > 5 * measured(blurred).sharpness
    assert measured(fine).brightness == pytest.approx(measured(blurred).brightness, abs=0.01)


def test_by_definition():
    small = resize(NOISE, 64, 64)
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    middle = cv2.cvtColor(NOISE[44:556, 144:656], cv2.COLOR_BGR2GRAY)
    found = measure(NOISE, small)
    assert found.brightness == pytest.approx(grey.mean() / 255)
    assert found.contrast == pytest.approx(grey.std() / 255)
    assert found.sharpness == pytest.approx(cv2.Laplacian(middle, cv2.CV_64F).var())


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 900, 3), (900, 1, 3)])
def test_odd_shapes(shape):
    assert np.isfinite(measured(np.zeros(shape, np.uint8)).sharpness)


def test_the_thumbnail_keeps_where_things_are():
    image = np.zeros((256, 256, 3), np.uint8)
    image[128:, 192:] = 255
    thumbnail = grey_thumbnail(image)
    assert thumbnail.shape == (MEAN_SIDE, MEAN_SIDE)
    assert (thumbnail[32:, 48:] == 255).all() and thumbnail[:32].max() == 0
