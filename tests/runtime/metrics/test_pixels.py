"""Pixel metrics against scikit-learn, and AUPRO against MVTec's definition written out slowly."""

from __future__ import annotations

import math
import resource
import tempfile
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from kanoclip.runtime.errors import KanoclipError
from kanoclip.runtime.metrics import PixelAccumulator, aupro, pixel_auroc, pixel_average_precision, pixel_f1_max


def regions(mask):
    """8-connected components by flood fill."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    found = []
    while left:
        region, edge = set(), [left.pop()]
        while edge:
            y, x = edge.pop()
            region.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            edge += near
        found.append(region)
    return found


def slow_aupro(masks, maps, max_fpr):
    """Every threshold, every region, in plain Python."""
    values = sorted({float(v) for heat in maps for v in heat.ravel()}, reverse=True)
    every = [(heat, region) for mask, heat in zip(masks, maps, strict=True) for region in regions(mask)]
    normal = [float(v) for mask, heat in zip(masks, maps, strict=True) for v in heat[mask == 0]]
    curve = [(0.0, 0.0)]
    for value in values:
        fpr = sum(v >= value for v in normal) / len(normal)
        pro = sum(sum(heat[p] >= value for p in region) / len(region) for heat, region in every) / len(every)
        curve.append((fpr, pro))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x0 >= max_fpr:
            break
        if x1 > max_fpr:
            y1 = y0 + (y1 - y0) * (max_fpr - x0) / (x1 - x0)
            x1 = max_fpr
        area += (x1 - x0) * (y0 + y1) / 2
    return area / max_fpr


@st.composite
def pictures(draw):
    """A few small images, mostly with few different values, so that ties are everywhere."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 7), st.integers(1, 7)))
    levels = draw(st.sampled_from([1, 2, 3, 10, 1000]))
    masks = rng.random(shape) < draw(st.sampled_from([0.1, 0.4, 0.9]))
    # One cell of each kind, so that every metric is defined.
    masks.flat[0], masks.flat[-1] = True, masks.size == 1
    maps = (rng.integers(0, levels, masks.shape) / levels).astype(np.float32)
    return masks, maps


IMAGES = pictures().filter(lambda both: both[0].size > 1)


def measure(masks, maps, **options):
    with PixelAccumulator(**options) as pixels:
        for mask, heat in zip(masks, maps, strict=True):
            pixels.add(mask, heat)
        found = pixels.result()
    return (found.auroc, found.average_precision, found.f1_max, found.aupro)


def assert_as_scikit_learn(masks, maps, found):
    labels, scores = masks.ravel(), maps.ravel()
    precision, recall, _ = sklearn.metrics.precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.where(precision + recall > 0, precision + recall, 1)
    auroc = sklearn.metrics.roc_auc_score(labels, scores)
    expected = (auroc, sklearn.metrics.average_precision_score(labels, scores), f1.max())
    assert found == pytest.approx(expected, abs=1e-12)


@given(IMAGES)
def test_equal_to_scikit_learn(both):
    found = (pixel_auroc(*both), pixel_average_precision(*both), pixel_f1_max(*both))
    assert_as_scikit_learn(*both, found)


@settings(max_examples=60, deadline=None)
@given(IMAGES, st.sampled_from([0.001, 0.05, 0.3, 0.77, 1.0]))
def test_aupro_is_mvtecs(both, max_fpr):
    assert aupro(*both, max_fpr) == pytest.approx(slow_aupro(*both, max_fpr), abs=1e-12)


@pytest.mark.parametrize("anomalous", [0.02, 0.9])
@pytest.mark.parametrize("memory", [0, 20_000, 512 << 20])
def test_many_portions_and_slices_are_as_one(anomalous, memory):
    """Values in the thousands beside a heap of zeros, as a map cut off at 0 has them."""
    rng = np.random.default_rng(5)
    masks = rng.random((6, 40, 50)) < anomalous
    maps = np.maximum(rng.standard_normal((6, 40, 50)) + masks, 0).astype(np.float32)
    found = measure(masks, maps, memory=memory)
    assert_as_scikit_learn(masks, maps, found[:3])
    assert found == measure(masks, maps)
    # The slow way, only over the thresholds that 1 digit leaves.
    coarse = maps.round(1)
    assert measure(masks, coarse, memory=memory)[3] == pytest.approx(slow_aupro(masks, coarse, 0.3), abs=1e-12)


@settings(deadline=None)
@given(IMAGES, st.sampled_from([0, 64, 300, 2000]))
def test_memory_changes_no_bit(both, memory):
    assert measure(*both, memory=memory) == measure(*both)


@given(IMAGES, st.randoms())
def test_neither_order_nor_a_monotone_change_changes_a_bit(both, random):
    masks, maps = both
    expected = measure(masks, maps)
    order = random.sample(range(len(masks)), len(masks))
    assert measure(masks[order], maps[order]) == expected
    _, rank = np.unique(maps, return_inverse=True)
    other = (np.exp(rank.reshape(maps.shape) / 200) - 3).astype(np.float32)
    assert measure(masks, other) == expected


def test_order_changes_no_bit_where_many_regions_tie():
    """Sums of 1/3, 1/7 and so on depend on their order, so it must not depend on that of the images."""
    rng = np.random.default_rng(6)
    masks = rng.random((30, 25, 25)) < 0.3
    maps = rng.integers(0, 3, masks.shape).astype(np.float32)
    expected = measure(masks, maps)
    for memory in (0, 5000, 512 << 20):
        order = rng.permutation(len(masks))
        assert measure(masks[order], maps[order], memory=memory) == expected


@given(IMAGES)
def test_the_other_way_round(both):
    masks, maps = both
    assert pixel_auroc(masks, -maps) == pytest.approx(1 - pixel_auroc(masks, maps), abs=1e-12)


def test_every_region_counts_the_same_whatever_its_size():
    """Two regions, 9 pixels and 1 pixel; only the large one is found."""
    mask = np.zeros((1, 8, 8), bool)
    mask[0, :3, :3] = True
    mask[0, 6, 6] = True
    heat = np.zeros((1, 8, 8), np.float32)
    heat[0, :3, :3] = 0.9
    heat[0, 6, 6] = -1
    assert aupro(mask, heat, 0.3) == pytest.approx(0.5, abs=1e-12)


def test_a_corner_joins_regions():
    mask = np.zeros((1, 8, 8), bool)
    mask[0, 0, 0] = mask[0, 1, 1] = mask[0, 6, 6] = True
    heat = np.zeros((1, 8, 8), np.float32)
    heat[0, 0, 0] = 1
    # Two regions. Half of the first is found at no cost; what is left ties with all that is normal.
    assert aupro(mask, heat, 1.0) == pytest.approx(0.25 + 0.75 / 2)


def test_close_float64_scores_are_not_ties():
    """They are the same in float32."""
    rng = np.random.default_rng(7)
    masks = rng.random((3, 9, 9)) < 0.3
    maps = 1 + rng.random(masks.shape) * 1e-10
    found = (pixel_auroc(masks, maps), pixel_average_precision(masks, maps), pixel_f1_max(masks, maps))
    assert_as_scikit_learn(masks, maps, found)
    assert aupro(masks, maps) == pytest.approx(slow_aupro(masks, maps, 0.3), abs=1e-12)
    assert measure(masks, maps, dtype=np.float64, memory=100) == measure(masks, maps, dtype=np.float64)


def test_float64_is_not_rounded_unasked():
    with PixelAccumulator() as pixels, pytest.raises(KanoclipError, match=r"float64 where .* float32"):
        pixels.add(np.zeros((2, 2)), np.zeros((2, 2), np.float64))
    with pytest.raises(KanoclipError, match="float16"):
        PixelAccumulator(dtype=np.float16)


def test_zeros_of_both_signs_tie():
    masks = np.zeros((2, 30, 30), bool)
    masks[:, ::3] = True
    maps = np.where(np.arange(1800).reshape(masks.shape) % 7 < 3, -0.0, 0.0).astype(np.float32)
    for memory in (0, 1000, 512 << 20):
        assert measure(masks, maps, memory=memory) == (0.5, 1 / 3, 0.5, 0.15)


def test_infinite_maps_are_ordered_like_others():
    masks = np.array([[[1, 0, 0]]])
    assert pixel_auroc(masks, np.array([[[np.inf, 0, -np.inf]]])) == 1
    assert pixel_auroc(masks, np.array([[[-np.inf, 0, -np.inf]]])) == 0.25
    rng = np.random.default_rng(8)
    masks = rng.random((4, 8, 8)) < 0.5
    maps = rng.choice([-np.inf, -1, 2, np.inf], masks.shape).astype(np.float32)
    finite = np.clip(maps, -9, 9)
    assert measure(masks, maps) == measure(masks, finite) == measure(masks, maps, memory=200)


def test_images_of_several_sizes_and_kinds_of_numbers():
    masks = [np.array([[0, 7], [0, 0]], np.uint8), np.array([[1, 0, 0]])]
    maps = [np.array([[0.1, 0.9], [0.2, 0.3]], np.float16), np.array([[0.8, 0.1, 0.5]], np.float64)]
    assert pixel_auroc(masks, maps) == 1
    assert aupro(masks, maps) == 1


def test_views_are_read_and_copied():
    """A caller may hand out the same buffer for each map."""
    rng = np.random.default_rng(9)
    masks, maps = rng.random((3, 8, 6)) < 0.4, rng.random((3, 8, 6)).astype(np.float32)
    masks[0] = False
    expected = measure(masks, maps)
    wide_mask, wide_map = np.zeros((6, 16), bool), np.zeros((6, 16), np.float32)
    with PixelAccumulator() as pixels:
        for mask, heat in zip(masks, maps, strict=True):
            wide_mask[:, ::-2], wide_map[:, ::-2] = mask.T, heat.T
            pixels.add(wide_mask[:, ::-2].T, wide_map[:, ::-2].T)
            wide_mask[:], wide_map[:] = False, -1
        found = pixels.result()
    assert (found.auroc, found.average_precision, found.f1_max, found.aupro) == expected


def test_the_map_of_a_normal_image_is_copied():
    heat = np.arange(6, dtype=np.float32).reshape(2, 3)
    with PixelAccumulator() as pixels:
        pixels.add(np.zeros((2, 3)), heat)
        heat[:] = 3.5
        pixels.add(np.ones((2, 3)), heat)
        assert pixels.result().auroc == 4 / 6


@pytest.mark.parametrize("memory", [0, 512 << 20])
def test_result_may_be_asked_for_in_between(memory):
    rng = np.random.default_rng(4)
    masks, maps = rng.random((6, 5, 5)) < 0.3, rng.random((6, 5, 5)).astype(np.float32)
    with PixelAccumulator(memory=memory) as pixels:
        for i, (mask, heat) in enumerate(zip(masks, maps, strict=True)):
            pixels.add(mask, heat)
            if i == 2:
                assert pixels.result().auroc == measure(masks[:3], maps[:3])[0]
        assert pixels.result().aupro == measure(masks, maps)[3]


@pytest.mark.parametrize(("anomalous", "zeros"), [(0.03, 0.0), (0.97, 0.0), (0.03, 0.95), (0.97, 0.95)])
def test_memory_is_bounded_whatever_there_is_most_of(anomalous, zeros):
    """2.5 million pixels are 10 MB."""
    rng = np.random.default_rng(10)
    tracemalloc.start()
    try:
        with PixelAccumulator(memory=1_000_000) as pixels:
            for _ in range(40):
                heat = np.maximum(rng.random((250, 250), np.float32) - np.float32(zeros), 0)
                pixels.add(rng.random((250, 250)) < anomalous, heat)
            pixels.result()
            # Anomalous pixels that tie are stored as one.
            assert pixels.bytes_on_disk > (8.5e6 if zeros == 0 or anomalous < 0.5 else 0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # What may be held, and a few copies of the last map.
    assert peak < 8e6


@pytest.fixture
def small_disk():
    """Files of this process end at 100 KB: what a full disk looks like, after a write that fits in part."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kind", [False, True])
def test_a_full_disk_names_the_folder_and_the_remedy(small_disk, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with PixelAccumulator(memory=1000) as pixels:
        with pytest.raises(KanoclipError, match=r"cannot take .*TMPDIR") as caught:
            for _ in range(20):
                pixels.add(np.full((60, 60), kind), np.random.default_rng(0).random((60, 60), np.float32))
        assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
        # A part is lost: there is no result that would be right.
        with pytest.raises(KanoclipError, match="gone"):
            pixels.result()


def test_nothing_after_the_end():
    with PixelAccumulator() as pixels:
        pass
    with pytest.raises(KanoclipError, match="gone"):
        pixels.result()
    with pytest.raises(KanoclipError, match="gone"):
        pixels.add(np.zeros((2, 2)), np.zeros((2, 2), np.float32))


@pytest.mark.parametrize("kind", [0, 1])
def test_nan_where_a_kind_is_absent(kind):
    masks = np.full((2, 4, 4), kind)
    assert all(math.isnan(value) for value in measure(masks, np.zeros((2, 4, 4), np.float32)))


def test_nan_without_maps():
    assert all(math.isnan(value) for value in measure([], []))
    assert math.isnan(pixel_auroc([], []))


@pytest.mark.parametrize(
    ("mask", "heat", "words"),
    [
        (np.zeros((4, 4)), np.zeros((4, 5), np.float32), r"\(4, 4\).*\(4, 5\)"),
        (np.zeros((4, 4, 1)), np.zeros((4, 4, 1), np.float32), r"\[H, W\]"),
        (np.zeros((4, 4)), np.full((4, 4), np.nan, np.float32), "NaN"),
        (np.ones((4, 4)), np.full((4, 4), np.nan, np.float32), "NaN"),
        (np.full((4, 4), 0.3), np.zeros((4, 4), np.float32), "pass masks first"),
        (np.full((4, 4), -1), np.zeros((4, 4), np.float32), "negative"),
        (np.zeros((4, 4)), np.zeros((4, 4), complex), "complex128"),
    ],
)
def test_what_cannot_be_added(mask, heat, words):
    with PixelAccumulator() as pixels, pytest.raises(KanoclipError, match=words):
        pixels.add(mask, heat)


@pytest.mark.parametrize("max_fpr", [0, -0.1, 1.1, math.nan])
def test_false_positive_rates_that_are_none(max_fpr):
    with pytest.raises(KanoclipError, match="false-positive rate"):
        aupro(np.zeros((1, 3, 3)), np.zeros((1, 3, 3)), max_fpr)


def test_as_many_maps_as_masks():
    with pytest.raises(KanoclipError, match="2 masks and 1 maps"):
        pixel_auroc(np.zeros((2, 3, 3)), np.zeros((1, 3, 3)))
