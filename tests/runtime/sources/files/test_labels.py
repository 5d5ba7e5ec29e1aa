"""Good from bad by folders' names: MVTec trees, one level, none at all, and names that mislead."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.sources.files.images import ImageSource
from kanoclip.runtime.sources.files.labels import Groups, by_label

IMAGE = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture
def tree(tmp_path):
    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), IMAGE)
        return tmp_path

    return make


def found(root):
    labelled = by_label(ImageSource.from_folder(root))
    good = [path.relative_to(root).as_posix() for path in labelled.good.paths]
    bad = {} if labelled.bad is None else {
        path.relative_to(root).as_posix(): labelled.groups.of(str(path)) for path in labelled.bad.paths
    }  # fmt: skip
    return good, bad, labelled.left_out


def test_a_whole_mvtec_tree(tree):
    root = tree("train/good/0.png", "test/good/1.png", "test/crack/2.png", "test/cut/deep/3.png")
    tree("ground_truth/crack/2_mask.png")
    assert found(root) == (
        ["test/good/1.png", "train/good/0.png"],
        {"test/crack/2.png": "crack", "test/cut/deep/3.png": "cut"},
        0,
    )
    assert found(root / "test")[1] == {"crack/2.png": "crack", "cut/deep/3.png": "cut"}


def test_dates_below_good_and_images_that_no_folder_names(tree):
    root = tree("OK/monday/1.png", "OK/crack/2.png", "3.png", "ko/4.png")
    assert found(root) == (["OK/crack/2.png", "OK/monday/1.png"], {"ko/4.png": "ko"}, 1)


def test_only_what_lies_beside_good_is_bad(tree):
    """A second product with no good folder of its own is neither."""
    root = tree("bottle/good/1.png", "bottle/cut/2.png", "cable/3.png")
    assert found(root) == (["bottle/good/1.png"], {"bottle/cut/2.png": "cut"}, 1)


def test_no_folder_is_called_good(tree):
    root = tree("crack/1.png", "goodyear/2.png")
    assert by_label(ImageSource.from_folder(root)) is None
    only = tree("x/good/1.png") / "x"
    assert found(only) == (["good/1.png"], {}, 0)
    (only / "none").mkdir()
    with pytest.raises(SourceError, match="no images"):
        by_label(ImageSource.from_folder(only / "none"))


def test_groups_of_a_folder_and_of_a_stream():
    groups = Groups(Path("bad"))
    assert groups.of("bad/crack/deep/1.png") == "crack" and groups.of("bad/1.png") == "bad"
    assert groups.of("elsewhere/1.png") == "bad" and Groups(None).of("camera 0") == "frames"
