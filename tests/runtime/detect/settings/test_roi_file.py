"""Polygon files are drawn by hand and by other programs: each mistake is named in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kanoclip.runtime.detect.settings.roi_file import read_roi, region_in
from kanoclip.runtime.errors import SettingsError

SQUARE = [[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]]
RELATIVE = {"units": "relative", "keep": [SQUARE]}
PIXELS = {"units": "pixels", "size": [200, 100], "keep": [[[50, 25], [150, 25], [150, 75], [50, 75]]]}
LABELME = {
    "version": "5.5.0",
    "flags": {},
    "shapes": [
        {
            "label": "roi",
            "points": [[50.0, 25.0], [150.0, 25.0], [150.0, 75.0], [50.0, 75.0]],
            "group_id": None,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
        },
        {"label": "ignore", "points": [[150.0, 75.0], [100.0, 50.0]], "shape_type": "rectangle", "flags": {}},
    ],
    "imagePath": "part.jpg",
    "imageData": None,
    "imageHeight": 100,
    "imageWidth": 200,
}


@pytest.fixture
def write(tmp_path):
    def write(value):
        path = tmp_path / "belt.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
        return path

    return write


def refused(path, *words):
    with pytest.raises(SettingsError) as caught:
        read_roi(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and len(message.splitlines()) == 1
    for word in words:
        assert word in message, message


def test_relative_and_pixels_are_the_same_region(write):
    relative, pixels = read_roi(write(RELATIVE)), read_roi(write(PIXELS))
    assert relative.name == "belt.json"
    assert relative.keep == pixels.keep == (tuple(map(tuple, SQUARE)),)
    assert (relative.drawn_on, pixels.drawn_on) == (None, (200, 100))
    assert relative.digest() == pixels.digest()


def test_labelme(write):
    region = read_roi(write(LABELME))
    assert region.keep == (tuple(map(tuple, SQUARE)),)
    assert sorted(region.ignore[0]) == [(0.5, 0.5), (0.5, 0.75), (0.75, 0.5), (0.75, 0.75)]
    assert region.drawn_on == (200, 100)


def test_a_closed_outline_and_corners_given_twice(write):
    assert read_roi(write(RELATIVE | {"keep": [[SQUARE[0], *SQUARE, SQUARE[-1], SQUARE[0]]]})).keep == (
        tuple(map(tuple, SQUARE)),
    )


def test_a_byte_order_mark(write):
    assert read_roi(write("\ufeff" + json.dumps(RELATIVE))).keep


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("[", ["not JSON"]),
        ("[" * 100_000, ["not JSON"]),
        ([], ["not a JSON object"]),
        ({}, ["units"]),
        ({"units": "mm", "keep": [SQUARE]}, ["units", "relative", "pixels"]),
        (RELATIVE | {"kepp": []}, ["'kepp'", "keep"]),
        (RELATIVE | {"size": [3, 4]}, ["size goes with pixels"]),
        ({"units": "pixels", "keep": PIXELS["keep"]}, ["pixels need size"]),
        (PIXELS | {"size": [200, 0]}, ["size"]),
        (PIXELS | {"size": [200.5, 100]}, ["size"]),
        (PIXELS | {"size": "200x100"}, ["size"]),
        (PIXELS | {"size": [40, 100]}, ["keep[0][0]", "x 0 to 40"]),
        (RELATIVE | {"keep": {}}, ["keep is not a list"]),
        (RELATIVE | {"keep": [3]}, ["keep[0] is not a list"]),
        (RELATIVE | {"keep": SQUARE}, ["keep[0][0] is not [x, y]"]),
        (RELATIVE | {"keep": [[[0, 0], [1, 0], [1, "1"]]]}, ["keep[0][2] is not [x, y]"]),
        (RELATIVE | {"keep": [[[0, 0], [1, 0], [1, True]]]}, ["keep[0][2] is not [x, y]"]),
        (RELATIVE | {"keep": [[[0, 0], [1, 0], [1, 1.01]]]}, ["keep[0][2] is [1, 1.01]", "outside"]),
        ('{"units": "relative", "keep": [[[0, 0], [1, 0], [NaN, 1]]]}', ["keep[0][2]", "outside"]),
        (RELATIVE | {"ignore": [SQUARE[:2]]}, ["ignore[0] has 2 different corners"]),
        (RELATIVE | {"ignore": [SQUARE[:2] * 5]}, ["ignore[0] has no area"]),
        (RELATIVE | {"keep": [[[0, 0], [0.5, 0.5], [1, 1]]]}, ["keep[0] has no area"]),
        (RELATIVE | {"keep": [[[0, 0], [1, 1], [1, 0], [0, 0.6]]]}, ["keep[0] crosses itself", "corners 0 and 2"]),
        (RELATIVE | {"ignore": [SQUARE]}, ["leave nothing of the image"]),
        ({"units": "relative"}, ["no polygon"]),
        ({"units": "relative", "keep": [], "ignore": []}, ["no polygon"]),
        (LABELME | {"imageHeight": None}, ["imageWidth and imageHeight"]),
        (LABELME | {"shapes": [LABELME["shapes"][0] | {"label": "hole"}]}, ["shapes[0]", "'hole'", "ignore"]),
        (LABELME | {"shapes": [LABELME["shapes"][0] | {"shape_type": "circle"}]}, ["shapes[0] is a circle"]),
        (LABELME | {"shapes": [LABELME["shapes"][0] | {"points": None}]}, ["shapes[0].points is not a list"]),
        (LABELME | {"shapes": [3]}, ["shapes[0] is not an object"]),
        (LABELME | {"shapes": []}, ["no polygon"]),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_what_is_no_region(write, value, words):
    refused(write(value), *words)


def test_files_that_cannot_be_read(tmp_path):
    refused(tmp_path / "none.json", "cannot be read")
    refused(tmp_path, "cannot be read")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.sampled_from([0, 0.5, 1, 200, "keep", "roi", "polygon", "pixels"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from([*LABELME, *PIXELS, "ignore", "points", "label", "shape_type"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    base=st.sampled_from([RELATIVE, PIXELS, LABELME]),
    change=JSON,
    key=st.sampled_from(["keep", "size", "units", "shapes", "imageWidth"]),
)
def test_any_json_is_taken_or_refused_in_one_line(write, base, change, key):
    path = write(json.dumps(base | {key: change}))
    try:
        region = read_roi(path)
    except SettingsError as error:
        assert str(error).startswith(f"{path}: ") and len(str(error).splitlines()) == 1
    else:
        assert region.mask(32, 32).any()


@st.composite
def polygons(draw):
    """Each sees its centre from every corner, with less than half a turn between two: it never crosses itself."""
    cx, cy = draw(st.floats(0.3, 0.7)), draw(st.floats(0.3, 0.7))
    count = draw(st.integers(3, 9))
    radii = draw(st.lists(st.floats(0.1, 0.3), min_size=count, max_size=count))
    shifts = draw(st.lists(st.integers(-15, 15), min_size=count, max_size=count))
    turns = np.deg2rad([360 * n / count + shift for n, shift in enumerate(shifts)])
    return [[cx + r * np.cos(a), cy + r * np.sin(a)] for r, a in zip(radii, turns, strict=True)]


def covered(polygon, x, y):
    """Whether points lie inside, by counting edges to the right; and how far they are from the nearest edge."""
    inside, nearest = np.zeros(x.shape, bool), np.full(x.shape, np.inf)
    for (x0, y0), (x1, y1) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        crosses = (y0 > y) != (y1 > y)
        with np.errstate(divide="ignore", invalid="ignore"):
            inside ^= crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
        length = max((x1 - x0) ** 2 + (y1 - y0) ** 2, 1e-12)
        along = np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length, 0, 1)
        nearest = np.minimum(nearest, np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0)))
    return inside, nearest


@given(st.lists(polygons(), max_size=2), st.lists(polygons(), max_size=2), st.sampled_from([(64, 64), (48, 96)]))
def test_what_is_ignored_is_cut_out_of_what_is_kept(keep, ignore, size):
    """Against another way to compute it; at the edges a pixel of the map may go either way."""
    try:
        region = region_in({"units": "relative", "keep": keep, "ignore": ignore}, "drawn")
        mask = region.mask(*size)
    except SettingsError as error:
        assert re.search("no polygon|leave nothing|no area", str(error)), error
        return
    rows, columns = size
    y, x = np.mgrid[:rows, :columns]
    x, y = (x + 0.5) / columns, (y + 0.5) / rows
    wanted, clear = np.full(size, not keep), np.ones(size, bool)
    for polygon in keep:
        inside, distance = covered(polygon, x, y)
        wanted |= inside
        clear &= distance > 1.5 / min(size)
    for polygon in ignore:
        inside, distance = covered(polygon, x, y)
        wanted &= ~inside
        clear &= distance > 1.5 / min(size)
    np.testing.assert_array_equal(mask[clear], wanted[clear])


def test_a_region_without_end_is_refused():
    triangle = [[0.1, 0.1], [0.9, 0.1], [0.5, 0.9]]
    with pytest.raises(SettingsError, match="more than 256 polygons"):
        region_in({"units": "relative", "ignore": [triangle] * 257}, "drawn")


@pytest.mark.parametrize(
    "text", ["25%,0,50%,100%", "0.25, 0, 0.5, 1", "160,0,320,480@640x480", "25%,0%,50%,1"]
)  # fmt: skip
def test_a_rectangle_as_text(text):
    region = read_roi(Path(text))
    assert region.keep == (((0.25, 0), (0.75, 0), (0.75, 1), (0.25, 1)),)
    assert region.drawn_on == ((640, 480) if "@" in text else None)
    mask = region.mask(100, 100)
    assert mask[:, 30:70].all() and not mask[:, :20].any() and not mask[:, 80:].any()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10,20,30,40", "10,20,30,40@1280x720"),
        ("0.5,0.5,0.6,0.1", "outside of the image"),
        ("0,0,641,10@640x480", "outside of the image"),
        ("0.1,0.1,0,0.5", "area|corners"),
        ("10%,10%,10%,10%@640x480", "leave 640x480 out"),
        ("0,0,1,1@0x480", "no image is 0x480"),
    ],
)
def test_what_is_no_rectangle(text, words):
    with pytest.raises(SettingsError, match=words):
        read_roi(Path(text))


def test_a_file_may_be_called_like_anything_else(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        read_roi(tmp_path / "1,2,3.json")
