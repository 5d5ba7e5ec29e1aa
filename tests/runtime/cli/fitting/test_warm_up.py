"""What becomes of what a line learned: sheet, copy, and the summary's JSON; each class's own."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from kanoclip.runtime import Detector
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.cli.fitting.warm_up import LineWarmUp, WarmUpOptions
from kanoclip.runtime.detect.learning.live import LiveReferences


class Control:
    """As far as a warm-up needs it."""

    def __init__(self, detector):
        self.references = LiveReferences(detector)
        self.use_memory = self.references.use

    def save_memory(self, output, class_name):
        return str(self.references.save(class_name, output))


@pytest.fixture
def detector(make_toy_bundle, tmp_path):
    folder = make_toy_bundle(tmp_path / "toy.kanoclip", classes=("nut", "wood screw"), grid=(4, 4), memory_rows=24)
    with Detector.load(folder, backend="onnxruntime", threads=1) as detector:
        yield detector


def warm_up(detector, options, snapshots=None, classes=("nut",)):
    made = LineWarmUp.of(options, detector, Control(detector), "nut", snapshots)
    for name in classes:
        for seed in range(options.warm_up):
            image = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)
            made.learner.look(f"{seed}.png", detector.prepare(image, name), image, name)
        made.finish()  # each class's fit, one after the other
    return made.as_json()["warm_up"]


def test_none_is_wanted(detector):
    assert LineWarmUp.of(WarmUpOptions(), detector, Control(detector), "nut", None) is None


def test_each_class_has_its_sheet_and_all_are_in_one_copy(detector, tmp_path):
    copy, sheet = tmp_path / "own.kanoclip", tmp_path / "w.jpg"
    found = warm_up(detector, WarmUpOptions(4, sheet, copy), classes=("nut", "wood screw"))
    assert found["frames"] == 4 and list(found["classes"]) == ["nut", "wood screw"]
    assert [one["sheet"] for one in found["classes"].values()] == [str(sheet), str(tmp_path / "w-wood_screw.jpg")]
    assert all(cv2.imread(one["sheet"]) is not None for one in found["classes"].values())
    manifest = Bundle.open(copy).manifest
    assert set(manifest.references) == {"nut", "wood screw"} and manifest.name == "own"
    for name, one in found["classes"].items():
        assert manifest.thresholds_of(name).image == one["threshold"] and one["saved_to"] == str(copy)


def test_a_sheet_that_cannot_be_written_is_one_line_and_the_copy_is_made(detector, tmp_path, caplog):
    copy = tmp_path / "own.kanoclip"
    found = warm_up(detector, WarmUpOptions(3, None, copy), snapshots=tmp_path / "none")
    assert found["classes"]["nut"]["sheet"] is None and Bundle.open(copy).manifest.references
    assert "none/warm-up.jpg: cannot be written" in caplog.text


def test_a_copy_that_cannot_be_written_is_one_line_and_the_memory_is_in_use(detector, tmp_path, caplog):
    found = warm_up(detector, WarmUpOptions(3, tmp_path / "w.jpg", tmp_path / "none" / "own.kanoclip"))
    assert found["classes"]["nut"]["saved_to"] is None and (tmp_path / "w.jpg").exists()
    assert "the memory of nut is in use all the same" in caplog.text and detector.rules.memory_of("nut") is not None
