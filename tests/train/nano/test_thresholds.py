import dataclasses
import json
import math
import shutil
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME
from kanoclip.runtime.errors import CalibrationError
from kanoclip.train.nano.scenes.photos import Photos
from kanoclip.train.nano.thresholds import good_and_bad, joint_threshold, main, set_thresholds
from kanoclip.train.nano.tree import split, write_tree


@pytest.fixture(autouse=True)
def one_in_twenty(monkeypatch):
    """A rate that few images can show; the recipe's own is for hard kinds of images."""
    monkeypatch.setattr("kanoclip.train.nano.thresholds.FALSE_ALARMS", 0.05)


VALUES = st.lists(st.integers(0, 40).map(lambda n: float(np.float32(n / 41))), min_size=19, max_size=60)


def bound(kinds, threshold):
    return sum(
        Fraction(sum(1 for value in values if value >= threshold) + 1, len(values) + 1) for values in kinds
    ) / len(kinds)


def slowly(kinds, rate):
    """The smallest threshold just above a value, tried from below; None where there is none."""
    for value in sorted({value for values in kinds for value in values}):
        above = np.nextafter(np.float32(value), np.float32(2))
        if bound(kinds, above) <= Fraction(str(rate)) and above <= 1:
            return float(above)
    return None


@settings(max_examples=150)
@given(st.lists(VALUES, min_size=1, max_size=4), st.sampled_from([0.05, 0.1, 0.2, 0.5]))
def test_the_joint_threshold_is_the_smallest_that_keeps_the_rate(kinds, rate):
    arrays = [np.array(values) for values in kinds]
    want = slowly(kinds, rate)
    if want is None:
        with pytest.raises(CalibrationError, match="no threshold keeps false alarms"):
            joint_threshold(arrays, rate)
        return
    got = joint_threshold(arrays, rate)
    assert got == want and bound(kinds, got) <= Fraction(str(rate))
    assert got == float(np.float32(got)), "maps are float32"
    assert joint_threshold(arrays[::-1], rate) == got, "the order of kinds says nothing"
    assert joint_threshold(arrays * 2, rate) == got, "each kind counts alike"


@settings(max_examples=40)
@given(VALUES)
def test_of_one_kind_it_is_the_conformal_threshold(values):
    allowed = math.floor(Fraction(1, 10) * (len(values) + 1)) - 1
    got = joint_threshold([np.array(values)], 0.1)
    ranked = sorted(values)
    assert got == float(np.nextafter(np.float32(ranked[len(values) - allowed - 1]), np.float32(2)))
    assert sum(value >= got for value in values) <= allowed


@pytest.mark.parametrize("kinds", [1, 2, 3, 5, 6, 7])
def test_the_fewest_images_are_enough_for_any_number_of_kinds(kinds):
    """Each bound is 1/20 above the largest value; their mean in floating point was more than 0.05 for three kinds."""
    values = np.linspace(0.1, 0.9, 19)
    got = joint_threshold([values] * kinds, 0.05)
    assert 0.9 < got < 0.9001


def test_a_large_kind_does_not_outvote_a_small_one():
    many, few = np.linspace(0, 0.4, 1000), np.linspace(0.5, 0.9, 19)
    assert joint_threshold([many, few], 0.05) > 0.8, "pooled, nearly all of the few would be false alarms"


def test_too_few_or_too_high_values_are_refused():
    with pytest.raises(CalibrationError, match="18 good images of a kind are too few: give at least 19"):
        joint_threshold([np.zeros(30), np.zeros(18)], 0.05)
    with pytest.raises(CalibrationError, match=r"no threshold keeps false alarms at 0\.05: give more good images"):
        joint_threshold([np.ones(19)], 0.05)
    with pytest.raises(CalibrationError, match="no threshold"):
        joint_threshold([np.linspace(0, 0.5, 30)], 0.01)


@pytest.fixture
def bundle(toy_bundle, tmp_path):
    return Path(shutil.copytree(toy_bundle, tmp_path / "copy.kanoclip"))


@pytest.fixture(scope="module")
def other_classes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    recipe = dataclasses.replace(split(64, held_out=True), materials=("leather",), things=(), anomalous=0.3)
    write_tree(folder, recipe, 5, 20, 40, None)
    return folder


def write_grey(folder, values):
    """Plain images: the toy's map is the brightness, so the score is the value itself."""
    folder.mkdir(parents=True)
    for number, value in enumerate(values):
        cv2.imwrite(str(folder / f"{number:02}.png"), np.full((32, 32, 3), value, np.uint8))
    return sorted(folder.iterdir())


def test_good_images_by_category_and_the_anomalous_ones(other_classes):
    good, bad = good_and_bad(other_classes)
    files = {path.relative_to(other_classes).as_posix() for path in other_classes.glob("*/test/*/*.jpg")}
    healthy = {name for name in files if name.split("/")[2] == "good"}
    for category in ("leather", "object"):
        own = {name for name in healthy if name.startswith(category)}
        found = {path.relative_to(other_classes).as_posix() for path in good.get(category, ())}
        assert found == (own if len(own) >= 19 else set())
    assert "object" in good and "leather" not in good, "leather has too few good ones"
    assert {path.relative_to(other_classes).as_posix() for path in bad} == files - healthy


def test_a_bundle_gets_thresholds_and_stays_whole(bundle, tmp_path):
    before = Bundle.open(bundle).manifest
    good = {"dark": write_grey(tmp_path / "dark", range(10, 50)), "light": write_grey(tmp_path / "light", [90] * 20)}
    found = set_thresholds(bundle, good, write_grey(tmp_path / "bad", [40, 91, 200, 220]))
    after = Bundle.open(bundle).manifest
    assert after.thresholds.image == found["image"] == float(np.nextafter(np.float32(90 / 255), np.float32(1)))
    assert after.thresholds.pixel == found["pixel"] and after.thresholds.min_area == 0
    assert after.thresholds.origin == (
        "false-alarm rate 0.05, mean over 40 good images (dark), 20 good images (light); not your part's"
    )
    assert dataclasses.replace(after, thresholds=before.thresholds) == before
    assert found["false_alarms"] == {"dark": 0.0, "light": 0.0} and found["found"] == 0.75
    assert set_thresholds(bundle, good, [])["found"] is None


def unchanged(bundle, good, bad, match):
    before = (bundle / MANIFEST_NAME).read_bytes()
    with pytest.raises(CalibrationError, match=match) as caught:
        set_thresholds(bundle, good, bad)
    assert "\n" not in str(caught.value) and (bundle / MANIFEST_NAME).read_bytes() == before


def test_bad_input_is_named_and_leaves_the_manifest_as_it_was(bundle, tmp_path):
    good = {"dark": write_grey(tmp_path / "dark", range(10, 40))}
    unchanged(bundle, {**good, "few": good["dark"][:18]}, [], "^few: 18 good images are too few: give at least 19")
    unchanged(bundle, {**good, "none": []}, [], "^none: 0 good images are too few")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    unchanged(bundle, {"dark": [*good["dark"], broken]}, [], r"cannot read .*broken\.png .*: leave it out, or copy")
    unchanged(bundle, good, [broken], r"cannot read .*broken\.png")
    unchanged(bundle, good, [tmp_path / "vanished.png"], r"cannot read .*vanished\.png")
    white = write_grey(tmp_path / "white", [255] * 20)
    unchanged(bundle, {"white": white}, [], "no threshold keeps false alarms")


def run(bundle, report, *arguments):
    return CliRunner().invoke(main, ["--bundle", str(bundle), "--report", str(report), *map(str, arguments)])


def test_the_command_takes_all_kinds(bundle, tmp_path):
    write_grey(tmp_path / "drawn" / "bolt" / "test" / "good", range(20, 45))
    write_grey(tmp_path / "drawn" / "bolt" / "test" / "scratch", [99, 200])
    write_grey(tmp_path / "drawn" / "few" / "test" / "good", [30] * 18)
    write_grey(tmp_path / "real" / "tile" / "test" / "good", range(60, 80))
    for number in range(200):
        photo = np.full((96, 96, 3), number % 90, np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "photos" / f"{number:03}.png"), photo)
    kept = len(Photos.from_folder(tmp_path / "photos", held_out=True).paths)
    assert 19 <= kept < 50
    report = tmp_path / "t.json"
    arguments = ("--generated", tmp_path / "drawn", "--photos", tmp_path / "photos", "--defects", tmp_path / "real")
    done = run(bundle, report, *arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(report.read_text())
    assert json.loads(done.output) == found and set(found["false_alarms"]) == {"generated", "photographs", "tile"}
    assert found["found"] == 1.0 and 79 / 255 < found["image"] < 0.36
    origin = Bundle.open(bundle).manifest.thresholds.origin
    assert f"25 good images (generated), {kept} good images (photographs), 20 good images (tile)" in origin


def test_the_command_refuses_in_one_line(bundle, tmp_path, other_classes, photo_folder):
    before = (bundle / MANIFEST_NAME).read_bytes()
    report = tmp_path / "t.json"
    assert len(Photos.from_folder(photo_folder, held_out=True).paths) < 19
    for arguments, said in (
        (("--generated", other_classes, "--photos", photo_folder), "photographs: "),
        (("--generated", other_classes, "--photos", tmp_path / "none"), "no folder of photographs"),
        (("--generated", tmp_path / "none"), "none"),
    ):
        done = run(bundle, report, *arguments)
        assert done.exit_code == 1 and said in done.output and done.output.count("\n") == 1, done.output
    assert not report.exists() and (bundle / MANIFEST_NAME).read_bytes() == before
