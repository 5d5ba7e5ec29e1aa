import dataclasses
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.bundle import Bundle
from kanoclip.runtime.errors import TrainingError
from kanoclip.train.nano.thresholds import exceeded_by, set_thresholds
from kanoclip.train.nano.tree import split, write_tree

UNIT = st.floats(0, 0.9375, width=32)


@given(st.lists(UNIT, min_size=20, max_size=200), st.sampled_from([0.05, 0.1, 0.5]))
def test_no_more_than_the_share_reaches_it_and_hardly_less_would_do(values, share):
    threshold = exceeded_by(values, share)
    assert sum(value >= threshold for value in values) <= share * len(values)
    below = max((value for value in values if value < threshold), default=None)
    assert below is None or sum(value >= below for value in values) > int(share * len(values))


def test_too_few_values_are_refused():
    with pytest.raises(TrainingError, match="19 good pictures are too few"):
        exceeded_by([0.5] * 19, 0.05)


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
