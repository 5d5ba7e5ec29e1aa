import dataclasses
import shutil
from pathlib import Path

import pytest

from kanoclip.runtime.bundle import Bundle
from kanoclip.runtime.errors import CalibrationError
from kanoclip.train.nano.thresholds import set_thresholds
from kanoclip.train.nano.tree import split, write_tree


@pytest.fixture
def other_classes(tmp_path):
    recipe = dataclasses.replace(split(64, held_out=True), materials=("leather",), things=(), anomalous=0.3)
    write_tree(tmp_path / "tree", recipe, 5, 20, 24, None)
    return tmp_path / "tree"


def test_a_bundle_gets_thresholds_and_stays_whole(toy_bundle, tmp_path, other_classes):
    bundle = Path(shutil.copytree(toy_bundle, tmp_path / "copy.kanoclip"))
    before = Bundle.open(bundle).manifest
    found = set_thresholds(bundle, other_classes)
    after = Bundle.open(bundle).manifest
    assert after.thresholds.image == found["image"] != before.thresholds.image
    assert after.thresholds.pixel == found["pixel"]
    assert "good generated pictures" in after.thresholds.origin
    assert dataclasses.replace(after, thresholds=before.thresholds) == before
    # The toy answers with the brightest pixel: where many good pictures are as bright as can be, none may reach it.
    assert 0 <= found["false_alarms"] <= 0.05 and 0 <= found["found"] <= 1


def test_too_few_pictures_are_refused_and_nothing_is_changed(toy_bundle, tmp_path):
    bundle = Path(shutil.copytree(toy_bundle, tmp_path / "copy.kanoclip"))
    recipe = dataclasses.replace(split(64, held_out=True), materials=("leather",), things=(), anomalous=0.3)
    write_tree(tmp_path / "tree", recipe, 5, 4, 8, None)
    with pytest.raises(CalibrationError, match=r"good frames are too few .* takes 19"):
        set_thresholds(bundle, tmp_path / "tree")
    assert Bundle.open(bundle) == dataclasses.replace(Bundle.open(toy_bundle), root=bundle)
