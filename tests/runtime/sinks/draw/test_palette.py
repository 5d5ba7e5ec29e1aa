"""The palette: even to the eye, the same in files and on the page, and nothing where the map does not count."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from kanoclip.runtime.sinks.draw.palette import COLOURS, MAP_OPACITY, as_script, coloured, cover, layer, place


def test_it_is_even_to_the_eye_and_clear_without_colour():
    lab = cv2.cvtColor((COLOURS[None].astype(np.float32) / 255), cv2.COLOR_BGR2LAB)[0]
    lightness = lab[:, 0]
    assert (np.diff(lightness) > -0.1).all() and lightness[0] < 1 and lightness[-1] > 97
    steps = np.convolve(np.diff(lightness), np.ones(16) / 16, "valid")
    assert steps.max() < 3 * steps.min()  # turbo's lightness rises and falls again


@pytest.mark.parametrize("threshold", [0.0, 0.001, 0.1, 0.5, 0.93, 1.0])
def test_the_middle_lies_at_the_threshold(threshold):
    value = np.linspace(0, 1, 1001)
    at = place(value, threshold)
    assert (np.diff(at) >= 0).all() and at[0] >= 0 and at[-1] <= 1
    if 0.01 < threshold < 0.99:
        assert place(np.array(threshold), threshold) == pytest.approx(0.5)


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.8])
def test_nothing_is_laid_over_what_is_well_below_the_threshold(threshold):
    below, near, above = np.linspace(0, 0.79 * threshold, 50), np.array(threshold), np.array((1 + 3 * threshold) / 4)
    assert (cover(below, threshold) == 0).all() and 0.5 < cover(near, threshold) < 1 and cover(above, threshold) == 1
    transparency, laid = layer(threshold)
    levels = np.arange(256) / 255 < 0.79 * threshold
    assert (transparency[levels] == 255).all() and (laid[levels] == 0).all()
    assert transparency.min() == round(255 * (1 - MAP_OPACITY))


def test_the_page_has_the_same_colours():
    lines = dict(line.removeprefix("export const ").rstrip(";").split(" = ") for line in as_script().splitlines())
    rgb = np.array(json.loads(lines["COLOURS"]))
    np.testing.assert_array_equal(rgb[:, ::-1], COLOURS)
    assert json.loads(lines["OPACITY"]) == MAP_OPACITY
    np.testing.assert_array_equal(coloured(np.array([0.0, 1.0]), 0.5), COLOURS[[0, 255]])
