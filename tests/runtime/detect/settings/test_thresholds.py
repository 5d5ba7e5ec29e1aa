"""Thresholds: a decision over the bundle's, and a warning where a promise is not kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.detect.settings.settings import Decision
from kanoclip.runtime.detect.settings.thresholds import decided, limits_of, unkept_promises
from kanoclip.runtime.errors import SettingsError
from kanoclip.runtime.types import RegionOfInterest

GIVEN = Thresholds(0.5, 0.25, 40, "calibrated on 200 frames", "a" * 64)
LEFT = RegionOfInterest("belt.json", keep=(((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)),))
NOTHING = RegionOfInterest("all.json", ignore=(((-1.0, -1.0), (2.0, -1.0), (2.0, 2.0), (-1.0, 2.0)),))


def test_each_number_is_taken_by_itself_zero_included():
    assert decided(GIVEN, Decision()) == GIVEN
    assert decided(GIVEN, Decision(roi=LEFT)) == GIVEN, "a region sets no number"
    for decision, field, value in (
        (Decision(threshold=0.0), "image", 0.0),
        (Decision(pixel_threshold=0.0), "pixel", 0.0),
        (Decision(min_area=0), "min_area", 0),
    ):
        assert decided(GIVEN, decision) == replace(GIVEN, **{field: value}, origin="set by the caller")


@pytest.fixture
def bundle(toy_bundle):
    bundle = Bundle.open(toy_bundle)
    return replace(bundle, manifest=replace(bundle.manifest, thresholds=GIVEN, class_thresholds={}))


def test_a_region_as_pixels_of_the_map(bundle):
    name = bundle.manifest.classes[0]
    height, width = bundle.manifest.model.image_size
    limits = limits_of(bundle, name, Decision(threshold=0.75, roi=LEFT))
    assert limits.thresholds.image == 0.75 and limits.mask.shape == (height, width)
    assert limits.mask[:, 0].all() and not limits.mask[:, -1].any()
    assert limits_of(bundle, name, Decision()).mask is None
    with pytest.raises(SettingsError, match=r"all\.json: the polygons leave nothing"):
        limits_of(bundle, name, Decision(roi=NOTHING))


def test_a_promise_that_is_not_kept_is_said_once(bundle, caplog):
    """Calibrated inside of one region, used in another or in none: the false-alarm rate is anybody's guess."""
    name = bundle.manifest.classes[0]
    said = unkept_promises(bundle, {name: Decision()}, set())
    assert said == {(name, None)} and caplog.text.count("calibrated inside of another region") == 1
    assert unkept_promises(bundle, {name: Decision()}, said) == said and len(caplog.messages) == 1
    moved = unkept_promises(bundle, {name: Decision(roi=LEFT)}, said)
    assert moved == {(name, LEFT.digest())} and len(caplog.messages) == 2, "another region is another mistake"
    assert unkept_promises(bundle, {name: Decision(threshold=0.5)}, moved) == {(name, None)}, "the pixels' is in use"
    assert unkept_promises(bundle, {name: Decision(threshold=0.5, pixel_threshold=0.5)}, moved) == set()


@pytest.mark.parametrize("roi", [None, LEFT])
def test_kept_promises_are_not_spoken_of(bundle, caplog, roi):
    digest = None if roi is None else roi.digest()
    kept = replace(bundle, manifest=replace(bundle.manifest, thresholds=replace(GIVEN, roi=digest)))
    assert unkept_promises(kept, {kept.manifest.classes[0]: Decision(roi=roi)}, set()) == set()
    assert not caplog.messages
