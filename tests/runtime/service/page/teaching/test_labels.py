"""The labelled set: a tree that `kanoclip-eval` reads, whole files, and nothing lost on a full disk."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from disks import fill, small_disk

from kanoclip.runtime.detect.reference.memory import Label
from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.service.page.teaching.labels import LabelledSet, folder_of
from kanoclip.runtime.system.files.own import own_in

ONE, OTHER = "a" * 64, "b" * 64
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in (".png", ".jpg"))


def test_it_is_a_data_set_of_original_frames(tmp_path):
    from kanoclip.train.data.registry import open_dataset

    labels = LabelledSet(tmp_path / "labels")
    good = labels.put("nut", Label.FINE, ONE, IMAGE, {"source": "camera 0"})
    jpeg = cv2.imencode(".jpg", IMAGE)[1].tobytes()
    bad = labels.put("nut", Label.BAD, OTHER, jpeg, {})
    assert np.array_equal(cv2.imread(str(good)), IMAGE) and bad.read_bytes() == jpeg
    assert tree(labels.folder) == ["nut/test/bad/bbbbbbbbbbbbbbbb.jpg", "nut/test/good/aaaaaaaaaaaaaaaa.png"]
    (category,) = open_dataset("mvtec", labels.folder).categories
    assert category.name == "nut" and [sample.anomalous for sample in category.samples] == [True, False]
    record = json.loads((labels.folder / "nut" / "records" / "aaaaaaaaaaaaaaaa.json").read_text())
    assert record == {"source": "camera 0", "label": "fine", "class": "nut"}
    assert own_in(labels.folder).everything, "no source of another run"


def test_another_label_takes_the_first_one_s_place_and_undo_deletes_nothing(tmp_path):
    labels = LabelledSet(tmp_path)
    labels.put("nut", Label.FINE, ONE, IMAGE, {})
    labels.put("nut", Label.BAD, ONE, IMAGE, {})
    assert tree(tmp_path) == ["nut/test/bad/aaaaaaaaaaaaaaaa.png"]
    labels.withdraw("nut", [ONE, OTHER])
    labels.withdraw("bolt", [ONE])
    assert tree(tmp_path) == ["nut/undone/bad/aaaaaaaaaaaaaaaa.png"]


@pytest.mark.parametrize("name", ["../../etc", "a/b", "<img src=x>", "'; \"", "..", "", "Größe", "x" * 300])
def test_a_class_may_be_called_anything(tmp_path, name):
    path = LabelledSet(tmp_path).put(name, Label.BAD, ONE, IMAGE, {})
    assert path.resolve().is_relative_to(tmp_path) and path.parts[-3:-1] == ("test", "bad")
    assert (path.parents[1] / "good").is_dir(), "defects alone are no data set"
    assert folder_of(name) != folder_of(name + "!") and folder_of("nut") == "nut"


def test_a_full_disk_loses_nothing(tmp_path):
    (tmp_path / "disk").mkdir()
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        labels = LabelledSet(disk / "labels")
        labels.put("nut", Label.FINE, ONE, IMAGE, {})
        fill(disk / "rest")
        large = np.random.default_rng(1).integers(0, 256, (400, 600, 3), np.uint8)
        with pytest.raises(SinkError, match=r"labels: cannot be written \(No space left on device\)"):
            labels.put("nut", Label.BAD, OTHER, large, {})
        with pytest.raises(SinkError):
            labels.put("nut", Label.BAD, ONE, large, {})
        assert tree(disk / "labels") == ["nut/test/good/aaaaaaaaaaaaaaaa.png"]
        assert np.array_equal(cv2.imread(str(disk / "labels/nut/test/good/aaaaaaaaaaaaaaaa.png")), IMAGE)
