"""Pixel metrics against scikit-learn, and AUPRO against MVTec's definition written out slowly."""

from __future__ import annotations

import math
import tempfile

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from kanoclip.runtime import metrics
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
    for (x0, y0), (x1, y1) in zip(curve, curve[1:], strict=False):
        if x0 >= max_fpr:
            break
        if x1 > max_fpr:
            y1 = y0 + (y1 - y0) * (max_fpr - x0) / (x1 - x0)
            x1 = max_fpr
        area += (x1 - x0) * (y0 + y1) / 2
    return area / max_fpr


@st.composite
def pictures(draw, least=1):
    """A few small pictures with few different values, so that ties are everywhere."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, height, width = draw(st.integers(least, 4)), draw(st.integers(1, 7)), draw(st.integers(1, 7))
    levels = draw(st.sampled_from([2, 3, 10, 1000]))
    masks = rng.random((count, height, width)) < draw(st.sampled_from([0.1, 0.4, 0.9]))
    maps = (rng.integers(0, levels, masks.shape) / levels).astype(np.float32)
    return masks, maps


def has_both(masks):
    return masks.any() and not masks.all()


@given(pictures().filter(lambda both: has_both(both[0])))
def test_equal_to_scikit_learn(both):
    masks, maps = both
    labels, scores = masks.ravel(), maps.ravel()
    assert pixel_auroc(masks, maps) == pytest.approx(sklearn.metrics.roc_auc_score(labels, scores), abs=1e-12)
    expected = sklearn.metrics.average_precision_score(labels, scores)
    assert pixel_average_precision(masks, maps) == pytest.approx(expected, abs=1e-12)
    precision, recall, _ = sklearn.metrics.precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.where(precision + recall > 0, precision + recall, 1)
    assert pixel_f1_max(masks, maps) == pytest.approx(f1.max(), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(pictures().filter(lambda both: has_both(both[0])), st.sampled_from([0.05, 0.3, 0.77, 1.0]))
def test_aupro_is_mvtecs(both, max_fpr):
    assert aupro(*both, max_fpr) == pytest.approx(slow_aupro(*both, max_fpr), abs=1e-12)


def test_every_region_counts_the_same_whatever_its_size():
    """Two regions, 9 pixels and 1 pixel; only the large one is found."""
    mask = np.zeros((1, 8, 8), bool)
    mask[0, :3, :3] = True
    mask[0, 6, 6] = True
    heat = np.zeros((1, 8, 8), np.float32)
    heat[0, :3, :3] = 0.9
    heat[0, 6, 6] = -1
    assert aupro(mask, heat, 0.3) == pytest.approx(0.5 + 0.5 * 0 + 0, abs=1e-12)
    diagonal = np.zeros((1, 8, 8), bool)
    diagonal[0, 0, 0] = diagonal[0, 1, 1] = True
    heat[:] = 0
    heat[0, 0, 0] = 1
    # One region by its corner: half of it is found at no cost, the other half ties with all that is normal.
    assert aupro(diagonal, heat, 1.0) == pytest.approx(0.75)


@given(pictures().filter(lambda both: has_both(both[0])), st.randoms())
def test_neither_order_nor_a_monotone_change_matters(both, random):
    masks, maps = both
    expected = measure(masks, maps)
    order = random.sample(range(len(masks)), len(masks))
    assert measure(masks[order], maps[order]) == pytest.approx(expected, abs=1e-12)
    _, rank = np.unique(maps, return_inverse=True)
    other = (np.exp(rank.reshape(maps.shape) / 200) - 3).astype(np.float32)
    assert measure(masks, other) == pytest.approx(expected, abs=1e-12)


def measure(masks, maps, **options):
    with PixelAccumulator(**options) as pixels:
        for mask, heat in zip(masks, maps, strict=True):
            pixels.add(mask, heat)
        found = pixels.result()
    return (found.auroc, found.average_precision, found.f1_max, found.aupro)


@pytest.mark.parametrize("memory", [0, 1500])
def test_a_temporary_file_changes_no_bit(monkeypatch, memory):
    rng = np.random.default_rng(3)
    masks = rng.random((20, 9, 11)) < 0.2
    maps = rng.random((20, 9, 11)).astype(np.float32).round(2)
    expected = measure(masks, maps)
    monkeypatch.setattr(metrics, "_CHUNK", 150)
    assert measure(masks, maps) == expected
    opened = []
    make = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **kw: opened.append(make(**kw)) or opened[-1])
    assert measure(masks, maps, memory=memory) == expected
    assert len(opened) == 1 and opened[0].closed
    assert opened[0].name not in (None, "") and not str(opened[0].name).startswith("/"), (
        "it has no name to leave behind"
    )


def test_result_may_be_asked_for_in_between():
    rng = np.random.default_rng(4)
    masks, maps = rng.random((6, 5, 5)) < 0.3, rng.random((6, 5, 5)).astype(np.float32)
    with PixelAccumulator() as pixels:
        for i, (mask, heat) in enumerate(zip(masks, maps, strict=True)):
            pixels.add(mask, heat)
            if i == 2:
                assert pixels.result().auroc == pytest.approx(measure(masks[:3], maps[:3])[0])
        assert pixels.result().aupro == pytest.approx(measure(masks, maps)[3])


def test_full_disk_names_the_folder(monkeypatch):
    monkeypatch.setattr(metrics, "_CHUNK", 10)

    class Full:
        def seek(self, *_):
            return 0

        def write(self, _):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Full())
    with PixelAccumulator(memory=0) as pixels, pytest.raises(KanoclipError, match="TMPDIR") as caught:
        pixels.add(np.zeros((5, 5)), np.zeros((5, 5), np.float32))
    assert tempfile.gettempdir() in str(caught.value)


@pytest.mark.parametrize("kind", [0, 1])
def test_nan_where_a_kind_is_absent(kind):
    masks = np.full((2, 4, 4), kind)
    assert all(math.isnan(value) for value in measure(masks, np.zeros((2, 4, 4), np.float32)))


def test_pictures_of_several_sizes_and_kinds_of_numbers():
    masks = [np.array([[0, 7], [0, 0]], np.uint8), np.array([[1, 0, 0]])]
    maps = [np.array([[0.1, 0.9], [0.2, 0.3]], np.float16), np.array([[0.8, 0.1, 0.5]], np.float64)]
    assert pixel_auroc(masks, maps) == 1
    assert aupro(masks, maps) == 1
    assert pixel_auroc(masks, [np.moveaxis(m[None], 0, -1)[..., 0] for m in maps]) == 1


@pytest.mark.parametrize(
    ("mask", "heat", "words"),
    [
        (np.zeros((4, 4)), np.zeros((4, 5), np.float32), r"\(4, 4\).*\(4, 5\)"),
        (np.zeros((4, 4, 1)), np.zeros((4, 4, 1), np.float32), r"\[H, W\]"),
        (np.zeros((4, 4)), np.full((4, 4), np.nan, np.float32), "NaN"),
        (np.ones((4, 4)), np.full((4, 4), np.nan, np.float32), "NaN"),
    ],
)
def test_what_cannot_be_added(mask, heat, words):
    with PixelAccumulator() as pixels, pytest.raises(KanoclipError, match=words):
        pixels.add(mask, heat)


@pytest.mark.parametrize("max_fpr", [0, -0.1, 1.1, math.nan])
def test_false_positive_rates_that_are_none(max_fpr):
    with pytest.raises(KanoclipError, match="false-positive rate"):
        PixelAccumulator(max_fpr)


def test_as_many_maps_as_masks():
    with pytest.raises(KanoclipError, match="2 masks and 1 maps"):
        pixel_auroc(np.zeros((2, 3, 3)), np.zeros((1, 3, 3)))


def test_infinite_maps_are_ordered_like_others():
    masks = np.array([[[1, 0, 0]]])
    assert pixel_auroc(masks, np.array([[[np.inf, 0, -np.inf]]])) == 1
    assert pixel_auroc(masks, np.array([[[-np.inf, 0, -np.inf]]])) == 0.25
