"""The annotated image, scored by its pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kanoclip.runtime.sinks.draw.draw import MIN_WIDTH, annotate
from kanoclip.runtime.types import Detection, Region, RegionOfInterest, Timings


def detection(heat, *, anomalous=False, regions=(), name="object", score=0.2):
    return Detection(score, heat, anomalous, 0.5, regions, name, Timings(0, 0, 0, 0, 0))


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [(300, 400), (1080, 1920), (333, 777)])
def test_a_normal_image_is_left_exactly_as_it_is(size):
    image = noise(*size)
    before = image.copy()
    out = annotate(image, detection(np.full((16, 16), 0.39, np.float32)), untrained=False)
    np.testing.assert_array_equal(out[-size[0] :], image)
    np.testing.assert_array_equal(image, before)
    assert out.shape[0] > size[0]


def test_regions_are_boxed_in_the_frame_s_own_pixels():
    image = np.full((400, 600, 3), 100, np.uint8)
    region = Region(x=200, y=150, width=100, height=80, score=0.9, area=5000)
    out = annotate(image, detection(np.zeros((8, 8), np.float32), anomalous=True, regions=(region,)), untrained=False)
    picture = out[-400:]
    for row, column in [(150, 250), (229, 250), (190, 200), (190, 299)]:
        assert (picture[row, column] == 255).all()
    assert (picture[160:220, 210:290] == 100).all()
    assert (picture[:100] == 100).all()


def test_a_stain_below_the_threshold_stays_readable_and_a_region_is_always_boxed():
    """The peak's region of an anomalous image may lie below the pixel threshold: no colour, but a box."""
    heat = np.full((16, 16), 0.3, np.float32)
    region = Region(x=200, y=150, width=100, height=80, score=0.35, area=5000)
    image = noise(400, 600)
    out = annotate(image, detection(heat, anomalous=True, regions=(region,)), untrained=False)[-400:]
    assert (out[150, 210:290] == 255).all()
    np.testing.assert_array_equal(out[160:220, 210:290], image[160:220, 210:290])
    np.testing.assert_array_equal(out[:, :150], image[:, :150])


@pytest.mark.parametrize("width", [1, 32, 100, 191])
def test_small_images_are_enlarged_by_a_whole_factor(width):
    image = noise(20, width)
    out = annotate(image, detection(np.zeros((4, 4), np.float32)), untrained=False)
    factor = out.shape[1] // width
    assert out.shape[1] == factor * width >= MIN_WIDTH
    np.testing.assert_array_equal(out[-20 * factor :: factor, ::factor], image)


def test_the_size_depends_on_the_frame_alone():
    shapes = {
        annotate(
            noise(120, 300),
            detection(np.zeros((4, 4), np.float32), anomalous=bad, name=name, score=score),
            untrained=untrained,
        ).shape
        for bad in (True, False)
        for name in ("x", "a very long class name " * 10, "Schraube ß 螺丝")
        for score in (0.0, 1.0)
        for untrained in (True, False)
    }
    assert len(shapes) == 1


def bar_of(**kwargs):
    untrained = kwargs.pop("untrained", False)
    return annotate(
        np.zeros((100, 800, 3), np.uint8), detection(np.zeros((4, 4), np.float32), **kwargs), untrained=untrained
    )[:-100]


def test_the_caption_tells_verdict_score_class_and_untrained_apart():
    bars = [
        bar_of(),
        bar_of(anomalous=True),
        bar_of(score=0.3),
        bar_of(name="nut"),
        bar_of(untrained=True),
    ]
    for i, one in enumerate(bars):
        for other in bars[i + 1 :]:
            assert (one != other).any()
    red, green = bar_of(anomalous=True)[:, 0], bar_of()[:, 0]
    assert (red[:, 2] > 2 * red[:, 1]).all() and (green[:, 1] > 1.5 * green[:, 2]).all()
    yellow = (bar_of(untrained=True).astype(int) @ [-1, 1, 1]) > 300
    assert yellow.sum() > 100
    assert ((bar_of().astype(int) @ [-1, 1, 1]) > 300).sum() == 0


def test_the_region_of_interest_is_outlined_and_the_rest_left_alone():
    box = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))
    inner = ((0.4, 0.4), (0.6, 0.4), (0.6, 0.6), (0.4, 0.6))
    roi = RegionOfInterest("x", keep=(box,), ignore=(inner,))
    found = replace(detection(np.zeros((8, 8), np.float32)), roi=roi)
    image = annotate(np.full((400, 800, 3), 90, np.uint8), found, untrained=False)[-400:]
    rows, columns = np.nonzero((image != 90).any(axis=2))
    assert abs(rows.min() - 100) <= 3 and abs(rows.max() - 300) <= 3
    assert abs(columns.min() - 200) <= 3 and abs(columns.max() - 600) <= 3
    assert (image[100:103, 300].max(axis=1).max() > 150) and (image[159:162, 400].max() > 150)
    assert (image[105:155, 205:595] == 90).all() and (image[165:235, 325:475] == 90).all()


def test_an_alarm_that_is_held_or_not_yet_raised_is_told_from_the_verdict():
    def bar(anomalous, alarm):
        found = replace(detection(np.zeros((4, 4), np.float32), anomalous=anomalous), alarm=alarm)
        return annotate(np.zeros((100, 800, 3), np.uint8), found, untrained=False)[:-100]

    for anomalous in (True, False):
        np.testing.assert_array_equal(bar(anomalous, anomalous), bar(anomalous, None))
        assert (bar(anomalous, not anomalous)[:, 100:] != bar(anomalous, anomalous)[:, 100:]).any()
    red, green = bar(False, True)[:, 0], bar(True, False)[:, 0]
    assert (red[:, 2] > 2 * red[:, 1]).all() and (green[:, 1] > 1.5 * green[:, 2]).all()
