"""Tiles: their boxes in frames and on the canvas agree, their weights sum to 1, and their maps meet without a seam."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.bundle.manifest.tiles import MOST_TILES, TileGrid
from kanoclip.runtime.detect.tiles import MOST_OVERLAP, WHOLE, Tiling, auto_grid, parse_grid
from kanoclip.runtime.errors import FrameError, SettingsError

HALF = 0.5 + 1e-9
"""A pixel's half, and what floating point adds."""
SIDES = st.integers(1, 40)
OVERLAPS = st.one_of(st.floats(0, MOST_OVERLAP), st.sampled_from([0.0, 0.15, 0.25, 0.5]))


@st.composite
def tilings(draw):
    rows = draw(st.integers(1, 8))
    columns = draw(st.integers(1, MOST_TILES // rows))
    return Tiling(TileGrid(rows, columns, draw(OVERLAPS)), (draw(SIDES), draw(SIDES)))


def transposed(tiling):
    grid = tiling.grid
    return Tiling(TileGrid(grid.columns, grid.rows, grid.overlap), tiling.size[::-1])


def ramp(height, width):
    """Falls from 1 at the top left to 0 at the bottom right, evenly."""
    down, across = np.linspace(1, 0, height), np.linspace(1, 0, width)
    return ((down[:, None] + across[None, :]) / 2).astype(np.float32)


def test_the_boards_of_kolektor_as_three_tiles():
    tiling = Tiling(TileGrid(3, 1, 0.15), (256, 256))
    assert tiling.canvas == (256 + round(2 * 0.85 * 256), 256)
    boxes = tiling.boxes(1240, 500)
    assert [(box.top, box.height) for box in boxes] == [(0, 459), (391, 460), (781, 459)]
    assert {(box.left, box.width) for box in boxes} == {(0, 500)}


def test_without_tiles_nothing_is_copied():
    tiling, frame, anomaly_map = Tiling(WHOLE, (32, 24)), np.zeros((32, 24, 3), np.uint8), np.ones((32, 24), np.float32)
    assert tiling.canvas == (32, 24) and tiling.count == 1
    assert np.shares_memory(tiling.cut(frame), frame) and tiling.cut(frame).shape == (1, 32, 24, 3)
    assert tiling.stitch([anomaly_map]) is anomaly_map
    tiling.check_frame(1, 1)


@given(tilings())
def test_weights_sum_to_one_everywhere(tiling):
    total = np.zeros(tiling.canvas)
    for box, weight in zip(tiling.boxes(*tiling.canvas), tiling.weights, strict=True):
        assert weight.shape == (box.height, box.width) == tiling.size
        assert (weight > 0).all() and (weight <= 1).all()
        box.of(total)[...] += weight
    np.testing.assert_allclose(total, 1, atol=1e-6)


@given(tilings(), st.floats(0, 1, width=32))
def test_a_constant_map_stays_constant(tiling, value):
    stitched = tiling.stitch([np.full(tiling.size, value, np.float32)] * tiling.count)
    assert stitched.shape == tiling.canvas and stitched.dtype == np.float32
    assert stitched.max() <= 1
    np.testing.assert_allclose(stitched, value, rtol=1e-6, atol=1e-9)


@given(tilings())
def test_a_ramp_stays_a_ramp(tiling):
    whole = ramp(*tiling.canvas)
    np.testing.assert_allclose(tiling.stitch(tiling.split(whole)), whole, atol=1e-6)


@given(tilings(), st.integers(0, 10**6))
def test_what_is_cut_is_put_together_again(tiling, seed):
    frame = np.random.default_rng(seed).integers(0, 256, (*tiling.canvas, 3), np.uint8)
    tiles = tiling.cut(frame)
    assert tiles.shape == (tiling.count, *tiling.size, 3) and tiles.flags.c_contiguous
    whole = tiling.stitch([tile[:, :, 0].astype(np.float32) / 255 for tile in tiles])
    np.testing.assert_allclose(whole, frame[:, :, 0].astype(np.float32) / 255, atol=1e-6)


@given(tilings(), st.integers(0, 10**6))
def test_what_differs_from_tile_to_tile_has_no_step(tiling, seed):
    """Of flat tiles each stitched value lies between theirs, and goes from one to the next by small steps."""
    values = np.random.default_rng(seed).random(tiling.count).astype(np.float32)
    stitched = tiling.stitch([np.full(tiling.size, value, np.float32) for value in values])
    assert values.min() - 1e-6 <= stitched.min() and stitched.max() <= values.max() + 1e-6
    for axis, starts in enumerate(tiling.grid.starts(tiling.size)):
        shared = min((start + tiling.size[axis] - after for start, after in pairwise(starts)), default=0)
        if shared:
            assert np.abs(np.diff(stitched, axis=axis)).max() <= 1 / shared + 1e-6


@given(tilings(), st.integers(1, 3000), st.integers(1, 3000))
def test_every_pixel_is_in_a_tile_and_every_tile_in_the_frame(tiling, height, width):
    try:
        boxes = tiling.boxes(height, width)
    except FrameError as error:
        grid = tiling.grid.title
        assert f"{width}x{height} pixels is too small for {grid} tiles: pass frames of at least" in str(error)
        assert height < tiling.grid.rows or width < tiling.grid.columns
        return
    covered = np.zeros((height, width), bool)
    for box in boxes:
        assert box.height >= 1 and box.width >= 1 and box.top >= 0 and box.left >= 0
        assert box.top + box.height <= height and box.left + box.width <= width
        box.of(covered)[...] = True
    assert covered.all()


@given(tilings(), st.integers(1, 3000), st.integers(1, 3000))
def test_boxes_in_frame_and_canvas_agree(tiling, height, width):
    """Of each edge: it is nowhere further from its place on the canvas than half a pixel of the frame."""
    height, width = max(height, tiling.grid.rows), max(width, tiling.grid.columns)
    down, across = height / tiling.canvas[0], width / tiling.canvas[1]
    for one, other in zip(tiling.boxes(height, width), tiling.boxes(*tiling.canvas), strict=True):
        assert (other.height, other.width) == tiling.size
        assert abs(one.top - other.top * down) <= HALF and abs(one.left - other.left * across) <= HALF
        assert abs(one.top + one.height - (other.top + other.height) * down) <= HALF
        assert abs(one.left + one.width - (other.left + other.width) * across) <= HALF


@given(tilings(), st.integers(0, 10**6))
def test_transposed_grids_behave_alike(tiling, seed):
    turned = transposed(tiling)
    assert turned.canvas == tiling.canvas[::-1]
    rows, columns = tiling.grid.rows, tiling.grid.columns
    maps = np.random.default_rng(seed).random((tiling.count, *tiling.size), np.float32)
    order = np.arange(tiling.count).reshape(rows, columns).T.ravel()
    np.testing.assert_allclose(turned.stitch([maps[i].T for i in order]), tiling.stitch(list(maps)).T, atol=1e-6)
    places = [tiling.boxes(*tiling.canvas)[i] for i in order]
    assert [(box.left, box.top) for box in places] == [(box.top, box.left) for box in turned.boxes(*turned.canvas)]


@pytest.mark.parametrize(
    ("frame", "title"),
    [
        ((1240, 500), "3x1"),
        ((500, 1240), "1x3"),
        ((700, 700), "1x1"),
        ((480, 640), "1x1"),
        ((1080, 1920), "1x2"),
        ((100, 10000), "1x16"),
        ((10000, 1), "16x1"),
    ],
)
def test_tiles_by_the_aspect(frame, title):
    assert auto_grid(*frame).title == title
    assert auto_grid(*frame).overlap == 0.15


def test_no_tile_is_smaller_than_the_models_image():
    assert auto_grid(1240, 500, (256, 256)).title == "3x1"
    assert auto_grid(620, 250, (256, 256)).title == "2x1"
    assert auto_grid(300, 100, (256, 256)).title == "1x1"


def test_a_model_that_is_not_square_wants_tiles_of_its_shape():
    assert auto_grid(500, 1240, (100, 248)).title == "1x1"
    assert auto_grid(1240, 500, (256, 512)).title == "5x1"


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 400), OVERLAPS)
def test_chosen_grids_are_sound(height, width, side, overlap):
    grid = auto_grid(height, width, (side, side), overlap)
    assert 1 <= grid.count <= MOST_TILES and min(grid.rows, grid.columns) == 1
    turned = auto_grid(width, height, (side, side), overlap)
    assert (turned.rows, turned.columns) == (grid.columns, grid.rows)
    if grid.count > 1:
        box = Tiling(grid, (side, side)).boxes(height, width)[0]
        assert (box.height if grid.rows > 1 else box.width) >= side - 1
        longer, shorter = max(height, width), min(height, width)
        ratio = max(box.height, box.width) / min(box.height, box.width)
        assert ratio <= longer / shorter + 0.5


def test_a_grid_is_read():
    assert parse_grid(" 3X1 ") == TileGrid(3, 1, 0.15)
    assert parse_grid("2x8", 0.5) == TileGrid(2, 8, 0.5)


@pytest.mark.parametrize(
    ("text", "overlap", "words"),
    [
        ("5", 0.15, "tiles '5': write ROWSxCOLUMNS, such as 3x1"),
        ("", 0.15, "write ROWSxCOLUMNS"),
        ("3x", 0.15, "write ROWSxCOLUMNS"),
        ("-1x3", 0.15, "write ROWSxCOLUMNS"),
        ("3x1x2", 0.15, "write ROWSxCOLUMNS"),
        ("٣x1", 0.15, "write ROWSxCOLUMNS"),
        ("0x2", 0.15, "tiles 0x2: 0 tiles in all; choose from 2 to 16"),
        ("1x1", 0.15, "1 tiles in all; choose from 2 to 16, or leave tiles out"),
        ("9x9", 0.15, "81 tiles in all; choose from 2 to 16"),
        ("3x1", 0.9, "an overlap of 0.9: choose from 0 to 0.5"),
        ("3x1", -0.1, "an overlap of -0.1"),
        ("3x1", float("nan"), "an overlap of nan"),
    ],
)
def test_what_is_no_grid_is_refused(text, overlap, words):
    with pytest.raises(SettingsError, match=r"^[^\n]*$") as caught:
        parse_grid(text, overlap)
    assert words in str(caught.value)
