"""The matrices are OpenCV's two steps, and those of the graph."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from kanoclip.runtime.detect.reference.smoothing import map_sigma, smooth, smoothing_matrices


@pytest.mark.parametrize(("grid", "size"), [((24, 24), (336, 336)), ((16, 12), (256, 192))])
def test_as_opencv(grid, size):
    cells = np.random.default_rng(0).random((2, *grid), np.float32)
    sigma = map_sigma(size[0])
    for found, one in zip(smooth(cells, size), cells, strict=True):
        large = cv2.resize(one, size[::-1], interpolation=cv2.INTER_LINEAR)
        side = 2 * int(np.ceil(4 * sigma)) + 1
        expected = cv2.GaussianBlur(large, (side, side), sigma, borderType=cv2.BORDER_REFLECT)
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_constant_stays():
    np.testing.assert_allclose(smooth(np.full((1, 4, 4), 0.3, np.float32), (32, 32)), 0.3, atol=1e-6)


def test_matrices_are_made_once():
    assert smoothing_matrices((4, 4), (32, 32)) is smoothing_matrices((4, 4), (32, 32))
