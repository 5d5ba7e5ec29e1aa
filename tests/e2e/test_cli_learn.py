"""`kanoclip-learn` as a user starts it, on a toy bundle: learned, added to, undone; one line for what goes wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from learning import defective, folder, images

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.store import locked
from kanoclip.runtime.cli.fitting import learn_steps
from kanoclip.runtime.cli.main import invoke
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.reference.stored.history import memory_of
from kanoclip.runtime.detect.settings.roi_file import read_roi

CPU = ("--backend", "onnxruntime", "--device", "cpu")


@pytest.fixture
def own(make_toy_bundle, tmp_path):
    return make_toy_bundle(tmp_path / "own.kanoclip", grid=(8, 8), memory_rows=64)


@pytest.fixture
def good(tmp_path):
    return folder(tmp_path / "good", 20)


@pytest.fixture
def bad(tmp_path):
    for number, image in enumerate(images(6, seed=50)):
        place = tmp_path / "bad" / ("spot" if number < 4 else "none")
        place.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place / f"{number}.png"), defective(image) if number < 4 else image)
    return tmp_path / "bad"


def learn(capsys, *arguments, code=0):
    """Runs the command; its JSON where that was wanted, else both outputs."""
    found = invoke("kanoclip-learn", "learn", [*map(str, arguments)])
    out, err = capsys.readouterr()
    assert found == code, (out, err)
    return json.loads(out) if "--json" in arguments and code == 0 else (out, err)


def fails(capsys, code, *arguments, parts=()):
    _, err = learn(capsys, *arguments, code=code)
    lines = [line for line in err.splitlines() if not line.startswith("warning:")]
    assert len(lines) == 1 and lines[0].startswith("error: "), err
    for part in parts:
        assert str(part) in lines[0], lines[0]


def files(place):
    return {str(path.relative_to(place)): path.read_bytes() for path in Path(place).rglob("*") if path.is_file()}


def test_copies_count_as_one_and_are_named(capsys, own, good, tmp_path):
    for number, image in enumerate(sorted(good.iterdir())[:3] * 2):
        shutil.copy(image, good / f"copy{number}{image.suffix}")
    given = (own, "--source", good, "--output", tmp_path / "copies.kanoclip", *CPU)
    found = learn(capsys, *given, "--json")
    assert (found["references"], len(found["repeats"])) == (26, 6)
    _, err = learn(capsys, *given, "--output", tmp_path / "again.kanoclip")
    assert "6 of 26 references show what another one shows, such as " in err and "they count as 20" in err


def test_learn_measure_add_and_undo(capsys, own, good, bad, tmp_path):
    before = files(own)
    plot, sheet = tmp_path / "recall.png", tmp_path / "sheet.jpg"
    found = learn(capsys, own, "--source", good, "--bad", bad, "--plot", plot, "--sheet", sheet, "--json", *CPU)
    assert found["references"] == 20 and found["rows"] == 64 and found["outliers"] == []
    folders = {one["name"]: one for one in found["recall"]["folders"]}
    assert folders["spot"]["shares"][2] == 1 and folders["none"]["shares"][2] == 0 and folders["all"]["frames"] == 6
    assert cv2.imread(str(plot)).shape == (840, 960, 3) and cv2.imread(str(sheet)) is not None
    opened = Bundle.open(own)
    memory = memory_of(opened, "object")
    assert memory.names[0] == "00.png" and opened.manifest.thresholds.image == found["image"]["threshold"]
    highest = found["highest_threshold"]  # of 20 references the spread may set the threshold
    assert memory.loo_scores.max() < (highest or opened.manifest.thresholds.image)

    more = folder(tmp_path / "more", 5, seed=9)
    added = learn(capsys, own, "--source", more, "--add", "--json", *CPU)
    assert added["references"] == 25 and added["added"] == 5 and added["rows"] == 64
    assert len(memory_of(Bundle.open(own), "object").names) == 25

    out, _ = learn(capsys, own, "--undo")
    assert "is back" in out and Bundle.open(own).manifest.thresholds == opened.manifest.thresholds
    learn(capsys, own, "--undo")
    now = Bundle.open(own).manifest
    assert now.references == {} and now.thresholds.image == 0.5
    assert set(files(own)) == set(before)
    fails(capsys, 1, own, "--undo", parts=["nothing to undo"])


def test_good_images_are_not_taken_as_bad(capsys, own, good, bad):
    """A folder of both given as the bad ones: its good ones would make any part unusable."""
    shutil.copytree(good, bad / "good")
    given = (own, "--source", bad, "--bad", bad, "--dry-run", *CPU)
    folders = learn(capsys, *given, "--json")["recall"]["folders"]
    assert [(one["name"], one["frames"]) for one in folders] == [("none", 2), ("spot", 4), ("all", 6)]
    assert "20 images in folders called good are not taken as bad" in learn(capsys, *given)[0]
    shutil.rmtree(bad / "none")
    shutil.rmtree(bad / "spot")
    fails(capsys, 1, *given, parts=["all of its 20 images lie in folders called good"])


def test_a_copy(capsys, own, good, tmp_path):
    before = files(own)
    copy = tmp_path / "bottle.kanoclip"
    learn(capsys, own, "--output", copy, "--source", good, *CPU)
    assert files(own) == before and Bundle.open(copy).manifest.name == "bottle"
    fails(capsys, 1, own, "--output", copy, "--source", good, parts=["is there already"])


def test_dry_run(capsys, own, good):
    before = files(own)
    out, _ = learn(capsys, own, "--source", good, "--dry-run", *CPU)
    assert "verdict: " in out and "nothing was changed" in out and files(own) == before


def test_mixed_broken_and_odd_references(capsys, own, good, tmp_path):
    (good / "zz.png").write_bytes(b"no image")
    folder(good, 1, start=90, other=True)
    _, err = learn(capsys, own, "--source", good, "--dry-run", *CPU)
    assert "90.png is unlike" in err and "zz.png cannot be read" in err and "--drop-outliers" in err
    sheet = tmp_path / "s.jpg"
    found = learn(capsys, own, "--source", good, "--drop-outliers", "--sheet", sheet, "--json", *CPU)
    assert found["references"] == 20 and [Path(name).name for name in found["left_out"]] == ["90.png"]
    assert sheet.exists() and [Path(one["name"]).name for one in found["unreadable"]] == ["zz.png"]


def test_unlabelled(capsys, own, good):
    for number in (3, 11):
        path = str(good / f"{number:02}.png")
        cv2.imwrite(path, defective(cv2.imread(path)))
    found = learn(capsys, own, "--source", good, "--unlabelled", "16", "--json", *CPU)
    assert {Path(name).name for name in found["left_out"]} >= {"03.png", "11.png"}
    assert found["references"] == 16 - len(found["left_out"]) and found["cells_left_out"] > 0
    assert not any("unlabelled frames came" in line for line in found["warnings"])
    found = learn(capsys, own, "--source", good / "00.png", "--unlabelled", "16", "--json", *CPU)
    assert any("1 of the 16 unlabelled frames came" in line for line in found["warnings"])


def test_one_image(capsys, own, good):
    _, err = learn(capsys, own, "--source", good / "00.png", *CPU)
    assert "single reference" in err and "at best" in err


def test_tiles(capsys, own, tmp_path, monkeypatch):
    tall = folder(tmp_path / "tall", 20, size=(120, 40))
    found = learn(capsys, own, "--source", tall, "--tiles", "auto", "--json", *CPU)
    assert found["tiles"]["rows"] == 3 and Bundle.open(own).manifest.tiles.rows == 3
    assert memory_of(Bundle.open(own), "object").tiles == Bundle.open(own).manifest.tiles
    wide = folder(tmp_path / "wide", 4, size=(40, 120))
    with monkeypatch.context() as patched:  # refused before an engine is made, which may take minutes
        patched.setattr(learn_steps, "create_backend", lambda *_: pytest.fail("an engine is made"))
        for source, tiles in ((tall, "2x1"), (wide, "auto")):
            parts = ["other tiles", "--output"]
            fails(capsys, 1, own, "--source", source, "--tiles", tiles, *CPU, parts=parts)
    copy = tmp_path / "two.kanoclip"
    zero = memory_of(Bundle.open(own), "object").before
    found = learn(capsys, own, "--source", tall, "--tiles", "2x1", "--output", copy, "--json", *CPU)
    now = Bundle.open(copy)
    assert found["tiles"]["rows"] == now.manifest.tiles.rows == 2
    assert now.manifest.references["object"].history == () and memory_of(now, "object").before == zero
    assert Bundle.open(own).manifest.tiles.rows == 3 and memory_of(Bundle.open(own), "object") is not None
    learn(capsys, own, "--source", tall, "--tiles", "auto", "--json", *CPU)  # the same tiles once more


def test_the_part_before_its_background(capsys, own, good, tmp_path):
    """The toy's part fills the frame or not; either way the file can be used."""
    region = tmp_path / "part.json"
    found = learn(capsys, own, "--source", good, "--foreground", region, "--json", *CPU)
    if region.exists():
        assert Bundle.open(own).manifest.thresholds.roi == read_roi(region).digest()
    assert found["references"] == 20


def test_classes(capsys, make_toy_bundle, good, tmp_path):
    own = make_toy_bundle(tmp_path / "two.kanoclip", classes=("nut", "bolt"), grid=(8, 8), memory_rows=64)
    fails(capsys, 2, own, "--source", good, parts=["--class", "nut, bolt"])
    learn(capsys, own, "--source", good, "--class", "bolt", *CPU)
    now = Bundle.open(own).manifest
    assert set(now.references) == {"bolt"} and set(now.class_thresholds) == {"bolt"}
    fails(capsys, 1, own, "--source", good, "--class", "nut", "--add", parts=["without --add"])


def test_a_second_writer(capsys, own, good):
    with locked(own):
        fails(capsys, 1, own, "--source", good, *CPU, parts=["another process"])


def test_a_graph_without_memory(capsys, toy_bundle, good, tmp_path):
    own = shutil.copytree(toy_bundle, tmp_path / "old.kanoclip")
    fails(capsys, 1, own, "--source", good, parts=["takes no reference memory", "export it again"])


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "name the bundle"),
        (["OWN"], "exactly one of"),
        (["OWN", "--source", "x", "--camera", "0"], "exactly one of"),
        (["OWN", "--undo", "--source", "x"], "--undo"),
        (["OWN", "--source", "x", "--add", "--rows", "5"], "--add"),
        (["OWN", "--source", "x", "--plot", "a.jpg"], ".png"),
        (["OWN", "--source", "x", "--sheet", "a.png"], ".jpg"),
        (["OWN", "--source", "x", "--augment", "blur"], "blur"),
        (["OWN", "--source", "x", "--foreground", "p.json", "--roi", "r.json"], "--foreground"),
        (["OWN", "--source", "x", "--false-alarm-rate", "nan"], "no number"),
    ],
)
def test_wrong_usage(capsys, own, arguments, part):
    fails(capsys, 2, *(str(own) if one == "OWN" else one for one in arguments), parts=[part])


def test_only_odd_things(capsys, own, tmp_path):
    before = files(own)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "x.png").write_bytes(b"no image")
    fails(capsys, 1, own, "--source", empty, *CPU, parts=["no frame in it can be read"])
    fails(capsys, 1, own, "--source", tmp_path / "nowhere", *CPU, parts=["no such file"])
    assert files(own) == before


def test_references_only(capsys, good, bad, tmp_path):
    """The shipped bundle, scored without its zero-shot map; what is added later is scored so, too."""
    own, bad = tmp_path / "alone.kanoclip", bad / "spot"
    given = ("--output", own, "--source", good, "--bad", bad, "--references-only")
    found = learn(capsys, *given, "--json", *CPU)
    assert found["references_only"] and found["fusion"]["zero_gain"] == 0
    memory = memory_of(Bundle.open(own), "object")
    assert memory.tensors().decides_alone
    highest = max(found["image"]["threshold"], found["highest_threshold"] or 0)
    with Detector.load(own, backend="onnxruntime", device="cpu") as detector:
        scores = [detector(cv2.imread(str(path))).score for path in sorted(good.iterdir())]
        odd = [detector(cv2.imread(str(path))).score for path in sorted(bad.iterdir())]
    assert min(odd) > highest and max(scores) < min(odd)

    fails(capsys, 2, own, "--source", good, "--add", "--references-only", parts=["--references-only"])
    more = folder(tmp_path / "more", 2, seed=9)
    out, _ = learn(capsys, own, "--source", more, "--add", *CPU)
    assert ", without the zero-shot map" in out
    out, _ = learn(capsys, own, "--source", good, *CPU)
    assert "without the zero-shot map" not in out and not memory_of(Bundle.open(own), "object").tensors().decides_alone


def test_augmented(capsys, own, good):
    found = learn(capsys, own, "--source", good, "--augment", "flips,rotations", "--rows", "50", "--json", *CPU)
    assert found["rows"] == 50 and found["references"] == 20
    assert np.isfinite(found["image"]["threshold"])
