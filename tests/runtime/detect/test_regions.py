"""Regions, against a flood fill written for this test."""

from __future__ import annotations

import math
from time import perf_counter

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kanoclip.runtime.detect.regions import find_regions, peak_region, within

LEVELS = st.sampled_from([0.0, 0.2, 0.5, 0.75, 1.0])
MAPS = arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=LEVELS)
FRAMES = st.tuples(st.integers(1, 60), st.integers(1, 60))


def flood(hot):
    """Sets of (row, column) that touch by a side or a corner."""
    left = {(int(y), int(x)) for y, x in np.argwhere(hot)}
    groups = []
    while left:
        edge = [left.pop()]
        group = set(edge)
        while edge:
            y, x = edge.pop()
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            group |= near
            edge += near
        groups.append(group)
    return groups


def expected(anomaly_map, threshold, frame):
    """(x, y, width, height, score, exact area) of each region."""
    height, width = anomaly_map.shape
    found = []
    for group in flood(anomaly_map >= threshold):
        rows, columns = [y for y, _ in group], [x for _, x in group]
        top, bottom = math.floor(min(rows) * frame[0] / height), math.ceil((max(rows) + 1) * frame[0] / height)
        left, right = math.floor(min(columns) * frame[1] / width), math.ceil((max(columns) + 1) * frame[1] / width)
        score = max(float(anomaly_map[place]) for place in group)
        found.append((left, top, right - left, bottom - top, score, len(group) * frame[0] * frame[1] / height / width))
    return found


def box(region):
    return (region.x, region.y, region.width, region.height, region.score)


@given(MAPS, LEVELS, FRAMES)
def test_equals_a_flood_fill(anomaly_map, threshold, frame):
    regions = find_regions(anomaly_map, threshold, 0, *frame)
    wanted = expected(anomaly_map, threshold, frame)
    assert sorted(map(box, regions)) == sorted(row[:5] for row in wanted)
    key = {}
    for row in wanted:
        key.setdefault(row[:5], []).append(max(row[5], 1))
    for region in regions:
        assert any(abs(region.area - area) <= 0.5 + 1e-9 for area in key[box(region)])


@given(MAPS, LEVELS, FRAMES)
def test_regions_lie_inside_the_frame(anomaly_map, threshold, frame):
    for region in find_regions(anomaly_map, threshold, 0, *frame):
        assert region.x >= 0 and region.y >= 0 and region.width >= 1 and region.height >= 1
        assert region.x + region.width <= frame[1] and region.y + region.height <= frame[0]
        assert 1 <= region.area <= region.width * region.height
        assert threshold <= region.score <= 1
        assert all(type(v) is int for v in (region.x, region.y, region.width, region.height, region.area))
        assert type(region.score) is float


@given(MAPS, LEVELS, FRAMES)
def test_sorted_by_score(anomaly_map, threshold, frame):
    regions = find_regions(anomaly_map, threshold, 0, *frame)
    assert [r.score for r in regions] == sorted((r.score for r in regions), reverse=True)
    if regions:
        assert regions[0].score == anomaly_map.max()
    else:
        assert anomaly_map.max() < threshold


@given(MAPS, LEVELS, FRAMES, st.integers(0, 500))
def test_min_area_only_drops_smaller_ones(anomaly_map, threshold, frame, min_area):
    everything = find_regions(anomaly_map, threshold, 0, *frame)
    assert find_regions(anomaly_map, threshold, min_area, *frame) == tuple(r for r in everything if r.area >= min_area)


@given(MAPS, LEVELS)
def test_areas_add_up_when_the_frame_has_the_maps_size(anomaly_map, threshold):
    regions = find_regions(anomaly_map, threshold, 0, *anomaly_map.shape)
    assert sum(r.area for r in regions) == (anomaly_map >= threshold).sum()


@given(MAPS, LEVELS, FRAMES, st.integers(1, 4), st.integers(1, 4))
@example(np.array([[0] * 7] + [[0.2] * 7] * 3, np.float32), 0.2, (22, 59), 1, 3)  # 973.5 pixels
def test_a_map_of_repeated_pixels_gives_the_same_regions(anomaly_map, threshold, frame, down, across):
    """Every map pixel becomes a block; the frame stays, so nothing in its pixels may change."""
    blocks = anomaly_map.repeat(down, axis=0).repeat(across, axis=1)

    def found(values):
        return sorted(find_regions(values, threshold, 0, *frame), key=lambda r: (*box(r), r.area))

    assert found(blocks) == found(anomaly_map)


def spot(size=8, row=2, column=3, value=0.9):
    anomaly_map = np.zeros((size, size), np.float32)
    anomaly_map[row, column] = value
    return anomaly_map


def test_diagonal_neighbours_are_one_region():
    anomaly_map = np.zeros((4, 4), np.float32)
    anomaly_map[1, 1] = anomaly_map[2, 2] = 1
    (region,) = find_regions(anomaly_map, 0.5, 0, 4, 4)
    assert (box(region), region.area) == ((1, 1, 2, 2, 1.0), 2)
    anomaly_map[2, 2], anomaly_map[3, 3] = 0, 1
    assert len(find_regions(anomaly_map, 0.5, 0, 4, 4)) == 2


@pytest.mark.parametrize("value", [0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
def test_the_threshold_is_inclusive(value):
    anomaly_map = spot(value=value)
    assert len(find_regions(anomaly_map, value, 0, 8, 8)) == 1
    assert find_regions(anomaly_map, float(np.nextafter(np.float32(value), np.float32(2))), 0, 8, 8) == ()


def test_threshold_zero_takes_everything():
    (region,) = find_regions(np.zeros((3, 4), np.float32), 0.0, 0, 30, 40)
    assert (box(region), region.area) == ((0, 0, 40, 30, 0.0), 1200)


def test_nothing_hot():
    assert find_regions(np.full((8, 8), 0.4, np.float32), 0.5, 0, 8, 8) == ()


def test_an_upscaled_frame():
    (region,) = find_regions(spot(), 0.5, 0, 80, 160)
    assert (region.x, region.y, region.width, region.height, region.area) == (60, 20, 20, 10, 200)


def test_a_box_covers_every_pixel_that_is_touched():
    """At 8 to 20 pixels a map pixel spans 2.5 of them."""
    (region,) = find_regions(spot(), 0.5, 0, 20, 20)
    assert (region.x, region.y, region.width, region.height) == (7, 5, 3, 3)
    assert region.area == 6  # 6.25


def test_min_area_counts_original_pixels():
    anomaly_map = spot()
    assert len(find_regions(anomaly_map, 0.5, 200, 80, 160)) == 1
    assert find_regions(anomaly_map, 0.5, 201, 80, 160) == ()
    assert find_regions(anomaly_map, 0.5, 2, 8, 8) == ()


@pytest.mark.parametrize("shape", [(1, 1), (336, 336), (7, 5)])
def test_a_frame_of_one_pixel(shape):
    anomaly_map = np.zeros(shape, np.float32)
    anomaly_map[-1, -1] = 1
    (region,) = find_regions(anomaly_map, 0.5, 1, 1, 1)
    assert (box(region), region.area) == ((0, 0, 1, 1, 1.0), 1)


def test_equal_scores_are_ordered_by_place():
    anomaly_map = np.zeros((8, 8), np.float32)
    for place in ((6, 1), (0, 5), (0, 1), (3, 3)):
        anomaly_map[place] = 0.8
    places = [(r.y, r.x) for r in find_regions(anomaly_map, 0.5, 0, 8, 8)]
    assert places == [(0, 1), (0, 5), (3, 3), (6, 1)]
    anomaly_map[:] = 0
    anomaly_map[1, 0] = anomaly_map[0, 4] = 0.8  # OpenCV scans two rows at a time and finds the lower one first
    assert [(r.y, r.x) for r in find_regions(anomaly_map, 0.5, 0, 8, 8)] == [(0, 4), (1, 0)]


def test_a_map_that_is_a_view():
    batch = np.zeros((8, 8, 2), np.float32)
    batch[2, 3, 1] = 0.9
    assert find_regions(batch[..., 1], 0.5, 0, 8, 8) == find_regions(spot(), 0.5, 0, 8, 8)


def test_the_map_is_not_written_to():
    anomaly_map = spot()
    anomaly_map.flags.writeable = False
    find_regions(anomaly_map, 0.5, 0, 80, 80)
    np.testing.assert_array_equal(anomaly_map, spot())


def cost_ms(anomaly_map):
    best = math.inf
    for _ in range(7):
        started = perf_counter()
        find_regions(anomaly_map, 0.5, 0, 1080, 1920)
        best = min(best, perf_counter() - started)
    return best * 1e3


def test_a_quiet_map_costs_under_1_ms():
    assert cost_ms(np.full((336, 336), 0.4, np.float32)) < 1


def test_a_hot_map_costs_under_5_ms():
    random = np.random.default_rng(0)
    assert cost_ms(random.uniform(0.5, 1, (336, 336)).astype(np.float32)) < 5


MASKS = arrays.arrays(np.bool_, st.just((5, 7)))
SOME = arrays.arrays(np.float32, (5, 7), elements=st.floats(0, 1, width=32))


@given(SOME, MASKS, st.floats(0, 1))
def test_a_part_of_the_map_gives_the_score_of_that_part(anomaly_map, mask, share):
    """Against eq. 12 written out, once with the whole map and once with the part that counts."""
    if not mask.any():
        mask[2, 3] = True
    before = anomaly_map.copy()
    kept, score = within(anomaly_map, (share + float(anomaly_map.max())) / 2, mask)
    np.testing.assert_array_equal(kept, np.where(mask, anomaly_map, 0))
    np.testing.assert_array_equal(anomaly_map, before)
    assert kept.dtype == np.float32
    assert score == pytest.approx((share + float(anomaly_map[mask].max())) / 2, abs=1e-12)
    assert 0 <= score <= 1


@given(SOME, MASKS, LEVELS)
def test_regions_where_the_map_counts(anomaly_map, mask, threshold):
    lowered = np.where(mask, anomaly_map, -1).astype(np.float32)
    assert find_regions(anomaly_map, threshold, 0, 50, 70, mask) == find_regions(lowered, threshold, 0, 50, 70)


@st.composite
def partly_counting(draw):
    """A map of any shape and what counts of it: at least one place, or all (None)."""
    shape = draw(arrays.array_shapes(min_dims=2, max_dims=2, max_side=9))
    values = draw(st.sampled_from([LEVELS, st.floats(0, 1, width=32)]))
    anomaly_map = draw(arrays.arrays(np.float32, shape, elements=values))
    if draw(st.booleans()):
        return anomaly_map, None
    where = draw(arrays.arrays(np.bool_, shape))
    where[draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))] = True
    return anomaly_map, where


@given(partly_counting(), FRAMES)
def test_the_region_of_the_peak_equals_a_flood_fill_from_it(values, frame):
    anomaly_map, where = values
    counts = np.ones(anomaly_map.shape, bool) if where is None else where
    inside = anomaly_map[counts].astype(np.float64)
    level = np.float32((inside.max() + np.median(inside.astype(np.float32))) / 2)
    places = [(int(y), int(x)) for y, x in np.argwhere(counts & (anomaly_map == inside.max()))]
    (group,) = (group for group in flood(counts & (anomaly_map >= level)) if places[0] in group)
    region = peak_region(anomaly_map, *frame, where)
    lowered = np.full_like(anomaly_map, -1)
    for place in group:
        lowered[place] = anomaly_map[place]
    ((*wanted, area),) = expected(lowered, 0.0, frame)
    assert box(region) == tuple(wanted)
    assert region.score == inside.max() and region.area == max(math.floor(area + 0.5), 1)


@given(partly_counting(), FRAMES)
def test_the_region_of_the_peak_holds_its_place_in_the_frame(values, frame):
    """All original pixels that the peak's pixel of the map touches, and none outside of the frame."""
    anomaly_map, where = values
    region = peak_region(anomaly_map, *frame, where)
    counted = anomaly_map if where is None else np.where(where, anomaly_map, -1)
    row, column = np.unravel_index(counted.argmax(), counted.shape)
    height, width = anomaly_map.shape
    assert 0 <= region.x <= column * frame[1] / width < (column + 1) * frame[1] / width <= region.x + region.width
    assert 0 <= region.y <= row * frame[0] / height < (row + 1) * frame[0] / height <= region.y + region.height
    assert region.x + region.width <= frame[1] and region.y + region.height <= frame[0] and region.area >= 1


@given(partly_counting(), FRAMES)
def test_the_region_of_the_peak_stays_where_the_map_counts(values, frame):
    """What lies outside changes nothing, and the box is no larger than that of what counts."""
    anomaly_map, where = values
    if where is None:
        where = np.zeros(anomaly_map.shape, bool)
        where[: -(-len(anomaly_map) // 2)] = True
    region = peak_region(anomaly_map, *frame, where)
    for outside in (0, 1):
        assert peak_region(np.where(where, anomaly_map, np.float32(outside)), *frame, where) == region
    rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
    height, width = where.shape
    assert region.y >= math.floor(rows[0] * frame[0] / height)
    assert region.y + region.height <= math.ceil((rows[-1] + 1) * frame[0] / height)
    assert region.x >= math.floor(columns[0] * frame[1] / width)
    assert region.x + region.width <= math.ceil((columns[-1] + 1) * frame[1] / width)


@pytest.mark.parametrize("value", [0.0, 0.1, float(np.nextafter(np.float32(1), np.float32(0))), 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (5, 8)])
def test_a_map_of_one_value_is_its_own_peak(value, shape):
    region = peak_region(np.full(shape, value, np.float32), 30, 40)
    assert box(region) == (0, 0, 40, 30, float(np.float32(value))) and region.area == 1200


def test_the_region_of_a_low_peak_is_as_narrow_as_the_peak():
    """On a ground of 0.1 and beside a lower and wider hill; the midpoint is 0.2."""
    anomaly_map = np.full((20, 20), 0.1, np.float32)
    anomaly_map[10:18, 2:10] = 0.19
    anomaly_map[3:6, 12:16] = 0.22
    anomaly_map[4, 13] = 0.3
    anomaly_map[10:12, 14:16] = 0.25  # as high as the peak's own area, and not connected with it
    region = peak_region(anomaly_map, 200, 100)
    assert (region.x, region.y, region.width, region.height, region.area) == (60, 30, 20, 30, 12 * 50)
    assert region.score == pytest.approx(0.3)


def test_the_map_is_not_written_to_for_its_peak():
    anomaly_map = spot()
    anomaly_map.flags.writeable = False
    peak_region(anomaly_map, 80, 80)
    np.testing.assert_array_equal(anomaly_map, spot())


def test_the_region_of_a_peak_costs_under_5_ms():
    anomaly_map = np.random.default_rng(0).uniform(0, 0.4, (336, 336)).astype(np.float32)
    best = math.inf
    for _ in range(7):
        started = perf_counter()
        peak_region(anomaly_map, 1080, 1920)
        best = min(best, perf_counter() - started)
    assert best < 5e-3
