"""The coloured map, scored by its pixels, and the memory that drawing takes."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.sinks import ImageFolderSink, VideoSink
from kanoclip.runtime.sinks.draw.draw import annotate
from kanoclip.runtime.sinks.draw.heat_map import Canvas, paint_heat_map
from kanoclip.runtime.sinks.draw.palette import MAP_OPACITY, coloured, cover
from kanoclip.runtime.sinks.snapshots.sink import SnapshotConfig, SnapshotSink
from kanoclip.runtime.types import Detection, Frame, Timings


def test_heat_does_not_depend_on_the_rest_of_the_map():
    """Per-image normalisation would change the weak spot when a strong one appears."""
    weak = np.zeros((16, 16), np.float32)
    weak[4, 4] = 0.6
    both = weak.copy()
    both[12, 12] = 1.0
    one, two = np.full((64, 64, 3), 90, np.uint8), np.full((64, 64, 3), 90, np.uint8)
    paint_heat_map(one, weak, 0.5)
    paint_heat_map(two, both, 0.5)
    np.testing.assert_array_equal(one[:32, :32], two[:32, :32])
    assert (one[:32, :32] != 90).any()


@pytest.mark.parametrize("at", [(0, 0), (15, 15), (0, 15), (8, 3)])
def test_heat_lands_where_the_map_is_hot(at):
    heat = np.zeros((16, 16), np.float32)
    heat[at] = 1.0
    image = np.full((161, 243, 3), 128, np.uint8)
    paint_heat_map(image, heat, 0.5)
    change = np.abs(image.astype(int) - 128).sum(-1)
    row, column = np.unravel_index(change.argmax(), change.shape)
    assert abs((row + 0.5) * 16 / 161 - at[0] - 0.5) < 0.6
    assert abs((column + 0.5) * 16 / 243 - at[1] - 0.5) < 0.6
    rows, columns = np.nonzero(change)
    assert rows.max() - rows.min() <= 3 * 161 / 16 + 2
    assert columns.max() - columns.min() <= 3 * 243 / 16 + 2


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.4, 0.9, 1.0])
def test_every_level_is_painted_by_its_distance_from_the_threshold(threshold):
    """All of a map's levels, each over all of an image's."""
    value = np.arange(256) / 255
    colours, opacity = coloured(value, threshold).astype(float), cover(value, threshold) * MAP_OPACITY
    for level in range(0, 256, 5):
        image = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
        before = image.astype(float)
        paint_heat_map(image, np.full((1, 256), level / 255, np.float32), threshold)
        expected = before * (1 - opacity[level]) + colours[level] * opacity[level]
        assert np.abs(image - expected).max() <= (2 if opacity[level] else 0), level


def test_what_is_not_a_number_leaves_the_image():
    heat = np.full((16, 16), np.nan, np.float32)
    heat[3:5, 3:5] = 1.0
    image = np.full((64, 64, 3), 90, np.uint8)
    paint_heat_map(image, heat, 0.5)
    assert (image[14:18, 14:18] != 90).any() and (image[24:] == 90).all() and (image[:, 24:] == 90).all()


def test_what_is_above_one_is_as_hot_as_one():
    one, above = np.full((8, 8, 3), 90, np.uint8), np.full((8, 8, 3), 90, np.uint8)
    paint_heat_map(one, np.full((4, 4), 1.0, np.float32), 0.5)
    paint_heat_map(above, np.full((4, 4), 1.7, np.float32), 0.5)
    np.testing.assert_array_equal(one, above)


def detection(heat):
    return Detection(0.9, heat, True, 0.5, (), "object", Timings(0, 0, 0, 0, 0))


def hot(rows, columns, top, left, size=64):
    heat = np.zeros((size, size), np.float32)
    heat[top : top + rows, left : left + columns] = np.linspace(0.6, 1, columns, dtype=np.float32)
    return heat


SPOTS = st.tuples(st.integers(0, 64), st.integers(1, 64), st.integers(0, 60), st.integers(0, 60))
SIZES = st.sampled_from([(48, 64), (20, 30), (240, 320), (1, 1), (333, 200)])


@given(st.lists(st.tuples(SIZES, SPOTS), min_size=1, max_size=5))
def test_a_canvas_changes_nothing_of_what_is_drawn(pictures):
    canvas = Canvas()
    for number, (size, spot) in enumerate(pictures):
        image = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
        found = detection(hot(spot[0], min(spot[1], 64 - spot[3]), spot[2], spot[3]))
        drawn = annotate(image, found, untrained=False, canvas=canvas)
        np.testing.assert_array_equal(drawn, annotate(image, found, untrained=False))


def test_without_a_canvas_an_image_is_nobody_else_s():
    image = np.zeros((100, 200, 3), np.uint8)
    one = annotate(image, detection(hot(60, 60, 0, 0)), untrained=False)
    two = annotate(image, detection(hot(1, 1, 0, 0)), untrained=False)
    assert not np.shares_memory(one, two) and (one != two).any()


def peak(call):
    """Most bytes that were taken at once, beyond those before; OpenCV's arrays are counted too."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


FRAME = 1080 * 1920 * 3


def test_what_drawing_takes_is_taken_once_and_does_not_depend_on_what_is_shown():
    image, canvas = np.full((1080, 1920, 3), 90, np.uint8), Canvas()

    def draw(rows, columns):
        return peak(lambda: annotate(image, detection(hot(rows, columns, 0, 0, 256)), untrained=False, canvas=canvas))

    first = draw(1, 1)
    assert 2 * FRAME < first < 3 * FRAME
    for size in (1, 10, 100, 256, 100):
        assert draw(size, size) < FRAME / 4, size
    assert peak(lambda: annotate(image, detection(hot(256, 256, 0, 0, 256)), untrained=False)) > 2 * FRAME


def test_images_of_one_size_lie_in_the_same_place():
    canvas = Canvas()
    image = np.zeros((100, 200, 3), np.uint8)
    drawn = [annotate(image, detection(hot(n, n, 0, 0)), untrained=False, canvas=canvas) for n in (1, 60, 5)]
    assert all(np.shares_memory(one, two) for one, two in pairwise(drawn))


@pytest.mark.parametrize("kind", ["images", "snapshots", "video"])
def test_a_sink_draws_in_the_same_memory_every_time(kind, tmp_path):
    sinks = {
        "images": lambda: ImageFolderSink(tmp_path, None, untrained=False),
        "snapshots": lambda: SnapshotSink(SnapshotConfig(tmp_path, min_interval_s=0.0), untrained=False),
        "video": lambda: VideoSink(tmp_path / "x.mp4", 25, live=False, untrained=False),
    }
    sink = sinks[kind]()
    image = np.full((1080, 1920, 3), 90, np.uint8)
    for index, size in enumerate((1, 256, 128)):
        frame, found = Frame(index, f"{index}.jpg", 1e9 + index / 25, image, 0.0), detection(hot(size, size, 0, 0, 256))
        taken = peak(lambda frame=frame, found=found: sink.write(frame, found))
        assert taken > FRAME if index == 0 else taken < FRAME / 2, index
    sink.close()
