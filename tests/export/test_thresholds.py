"""An export keeps the shipped thresholds where its model is the shipped one, and says so where it does not."""

from __future__ import annotations

import pytest

from kanoclip.export.thresholds import DEFAULT, first_thresholds
from kanoclip.runtime.bundle.bundle import Bundle, shipped_bundle
from kanoclip.runtime.bundle.manifest.tiles import TileGrid


@pytest.fixture(scope="module")
def shipped():
    return Bundle.open(shipped_bundle()).manifest


def test_the_shipped_model_keeps_its_thresholds_for_any_class(shipped):
    for classes in (shipped.classes, ("bottle", "cable")):
        found = first_thresholds(shipped.model.checkpoint_sha256, classes, None)
        assert (found.image, found.pixel) == (shipped.thresholds.image, shipped.thresholds.pixel)
        assert found.origin.startswith(shipped.thresholds.origin) and "shipped" in found.origin
        assert ("of the class object" in found.origin) == (classes != shipped.classes)
        assert not found.of_the_part


def test_another_model_and_tiles_have_none_to_keep(shipped):
    own = shipped.model.checkpoint_sha256
    for given in ((None, None), ("0" * 64, None), (own, TileGrid(3, 1, 0.1))):
        found = first_thresholds(given[0], ("object",), given[1])
        assert found == DEFAULT and not found.of_the_part
