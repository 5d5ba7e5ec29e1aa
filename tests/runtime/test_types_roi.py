"""Regions of interest, against OpenCV's distance of a point from a polygon."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.errors import FrameError, SettingsError
from kanoclip.runtime.types import RegionOfInterest

SIZES = st.tuples(st.integers(8, 64), st.integers(8, 64))
LEFT_HALF = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
TOP_HALF = ((0.0, 0.0), (1.0, 0.0), (1.0, 0.5), (0.0, 0.5))


@st.composite
def stars(draw):
    """Corners about a centre by angle: a polygon that cannot cross itself, convex or not."""
    angles = sorted(draw(st.lists(st.floats(0, 6.28), min_size=3, max_size=9, unique_by=lambda a: round(a, 2))))
    reach = [draw(st.floats(0.05, 0.45)) for _ in angles]
    return tuple((0.5 + r * math.cos(a), 0.5 + r * math.sin(a)) for a, r in zip(angles, reach, strict=True))


def distances(polygon, height, width):
    """Of each pixel's centre from the outline, in pixels; positive inside."""
    contour = (np.array(polygon) * (width, height) - 0.5).astype(np.float32)
    return np.array([[cv2.pointPolygonTest(contour, (x, y), True) for x in range(width)] for y in range(height)])


@given(stars(), SIZES)
def test_a_pixel_inside_is_kept_and_one_a_pixel_off_is_not(polygon, size):
    mask = np.ones(size, bool)
    try:
        mask = RegionOfInterest("x", keep=(polygon,)).mask(*size)
    except SettingsError:
        pytest.fail("a polygon covers at least the pixels that its edges run through")
    distance = distances(polygon, *size)
    assert mask[distance > 0.25].all()
    assert not mask[distance < -1.1].any()


@given(stars(), stars(), SIZES)
def test_ignored_pixels_are_cut_out_of_kept_ones_and_several_polygons_add_up(one, two, size):
    a = RegionOfInterest("x", keep=(one,)).mask(*size)
    b = RegionOfInterest("x", keep=(two,)).mask(*size)
    np.testing.assert_array_equal(RegionOfInterest("x", keep=(one, two)).mask(*size), a | b)
    try:
        found = RegionOfInterest("x", keep=(one,), ignore=(two,)).mask(*size)
    except SettingsError:
        assert not (a & ~b).any()
    else:
        np.testing.assert_array_equal(found, a & ~b)


def test_without_a_polygon_to_keep_the_whole_image_is():
    mask = RegionOfInterest("x", ignore=(LEFT_HALF,)).mask(10, 20)
    assert not mask[:, :10].any() and mask[:, 11:].all()
    assert RegionOfInterest("x").mask(3, 4).all()


def test_a_polygon_smaller_than_a_pixel_still_ignores_it():
    speck = ((0.52, 0.52), (0.53, 0.52), (0.53, 0.53))
    mask = RegionOfInterest("x", ignore=(speck,)).mask(8, 8)
    assert not mask[4, 4] and mask.sum() >= 60


def test_nothing_left():
    with pytest.raises(SettingsError, match=r"belt\.json: the polygons leave nothing"):
        RegionOfInterest("belt.json", keep=(LEFT_HALF,), ignore=(((0, 0), (1, 0), (1, 1), (0, 1)),)).mask(8, 8)


@pytest.mark.parametrize(
    ("height", "width", "fits"),
    [
        (720, 1280, True),
        (1080, 1920, True),
        (360, 641, True),
        (960, 1280, False),
        (1280, 720, False),
        (1, 1, False),
    ],
)
def test_frames_of_another_shape_than_it_was_drawn_on(height, width, fits):
    region = RegionOfInterest("belt.json", keep=(LEFT_HALF,), drawn_on=(1920, 1080))
    if fits:
        region.check_frame(height, width)
    else:
        with pytest.raises(FrameError, match=f"belt.json was drawn on an image of 1920x1080.*{width}x{height}"):
            region.check_frame(height, width)
    RegionOfInterest("x", keep=(LEFT_HALF,)).check_frame(height, width)


def test_digests_tell_regions_apart_and_not_their_files():
    one, two = RegionOfInterest("a", keep=(LEFT_HALF,)), RegionOfInterest("b", keep=(LEFT_HALF,), drawn_on=(2, 2))
    assert one.digest() == two.digest()
    others = [
        RegionOfInterest("a", ignore=(LEFT_HALF,)),
        RegionOfInterest("a", keep=(TOP_HALF,)),
        RegionOfInterest("a"),
    ]
    assert len({region.digest() for region in [one, *others]}) == 4


def test_outlines_are_in_pixels_of_the_image():
    (kept,), (ignored,) = RegionOfInterest("a", keep=(LEFT_HALF,), ignore=(TOP_HALF,)).outlines(100, 200)
    assert kept.dtype == np.int32 and np.abs(kept - [[0, 0], [100, 0], [100, 100], [0, 100]]).max() <= 1
    assert np.abs(ignored - [[0, 0], [200, 0], [200, 50], [0, 50]]).max() <= 1
