"""`kanoclip-export --tiles` as a person runs it, and every command that takes the tiled bundle, on real photographs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from kanoclip.runtime import Detector
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.tiles import TileGrid

from .helpers import environment

BIN = Path(sys.executable).parent
EXAMPLES = Path(__file__).parents[2] / "examples" / "hazelnut_toy"
CPU = ("--backend", "onnxruntime", "--device", "cpu")
MODEL = ("--backbone", "random-tiny", "--weights", "none")

pytestmark = pytest.mark.timeout(300)


def run(program, *arguments, cwd, code=0):
    command = [str(BIN / program), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=280)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def strips(tmp_path_factory):
    """The photographs and their masks, of which a strip of 500x200 is left, in the MVTec tree."""
    root = tmp_path_factory.mktemp("strips")
    for path in EXAMPLES.rglob("*"):
        if path.suffix in (".jpg", ".png"):
            target = root / "nut" / path.relative_to(EXAMPLES)
            target.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(target), cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[:500, 150:350])
    return root


@pytest.fixture(scope="module")
def exported(strips):
    images = strips / "nut" / "test"
    done = run(
        "kanoclip-export",
        *MODEL,
        *("--tiles", "auto", "--parity-images", images, "--parity-limit", 4, "--output", "strip.kanoclip"),
        cwd=strips,
    )
    return strips, done


def test_tiles_by_the_shape_of_the_images(exported):
    folder, done = exported
    manifest = Bundle.open(folder / "strip.kanoclip").manifest
    assert manifest.tiles == TileGrid(3, 1, 0.15)
    assert (manifest.max_batch, manifest.dynamic_batch) == (3, False)
    assert manifest.parity["pictures"] == 12 and "parity with torch on 12 tiles" in done.stderr
    assert "tiles: 3x1" in done.stderr
    height, width = manifest.model.image_size
    assert {image.shape for image in Bundle.open(folder / "strip.kanoclip").samples()} == {(height, width, 3)}
    assert manifest.map_size == (height + int(2 * 0.85 * height + 0.5), width)


def test_run_and_doctor(exported):
    folder, _ = exported
    assert "3x1" not in run("kanoclip-doctor", "strip.kanoclip", *CPU, cwd=folder).stderr
    options = ("--source", "nut/test", "--bundle", "strip.kanoclip", *CPU, "--no-window", "--threshold", 0)
    for name, more in (("full", ()), ("drawn", ("--output", "out")), ("reduced", ("--reduced-jpeg",))):
        run("kanoclip-run", *options, "--jsonl", f"{name}.jsonl", *more, cwd=folder)
    rows, drawn, reduced = (
        [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        for name in ("full", "drawn", "reduced")
    )
    assert len(rows) == 23 and len(list((folder / "out").rglob("*.jpg"))) == 23
    for row, other, small in zip(rows, drawn, reduced, strict=True):
        assert row["score"] == other["score"]
        assert small["score"] == row["score"]  # of these no side is four times the canvas's: nothing may be left out
        assert row["regions"]
        for region in row["regions"]:
            assert 0 <= region["x"] < region["x"] + region["width"] <= 200
            assert 0 <= region["y"] < region["y"] + region["height"] <= 500
    path = folder / "nut" / "test" / "good"
    first = sorted(path.glob("*.jpg"))[0]
    with Detector.load(folder / "strip.kanoclip", backend="onnxruntime", device="cpu") as detector:
        assert round(detector(cv2.imread(str(first))).score, 6) in [row["score"] for row in rows]


def test_eval_measures_at_the_size_of_the_stitched_map(exported):
    folder, _ = exported
    data = ("--dataset", "mvtec", "--root", folder, "--category", "nut", "--bundle", "strip.kanoclip")
    done = run("kanoclip-eval", *data, "--output", "e.json", cwd=folder)
    assert "in 3x1 tiles" in done.stdout + done.stderr
    told = json.loads((folder / "e.json").read_text())
    assert told["model"]["tiles"] == "3x1"
    assert 0 <= told["mean"]["image_auroc"] <= 1 and 0 < told["mean"]["aupro"] <= 1
    # The shape of the images says the same as the bundle; another grid gives other answers.
    auto, other = (
        json.loads(run("kanoclip-eval", *data, "--tiles", tiles, "--json", cwd=folder).stdout)
        for tiles in ("auto", "2x1")
    )
    assert (auto["model"], auto["categories"]) == (told["model"], told["categories"])
    assert other["model"]["tiles"] == "2x1" and other["categories"] != told["categories"]


def test_score_and_calibrate(exported):
    parquet = pytest.importorskip("pyarrow.parquet")
    folder, _ = exported
    common = ("--source", "nut/test", "--bundle", "strip.kanoclip", *CPU)
    run("kanoclip-score", *common, "--output", "s.parquet", "--maps", "maps", "--quiet", cwd=folder)
    size = Bundle.open(folder / "strip.kanoclip").manifest.map_size
    rows = parquet.read_table(folder / "s.parquet").to_pylist()
    assert len(rows) == 23
    for row in rows:
        assert tuple(row["mask"]["size"]) == size and (row["height"], row["width"]) == (500, 200)
        assert cv2.imread(str(folder / "maps" / row["map_file"]), cv2.IMREAD_UNCHANGED).shape == size
    run("kanoclip-report", "s.parquet", "--maps", "maps", "--output", "s.html", cwd=folder)
    top = {"units": "pixels", "size": [200, 500], "keep": [[[0, 0], [200, 0], [200, 250], [0, 250]]]}
    (folder / "top.json").write_text(json.dumps(top))
    options = ("--source", "nut/test/good", *CPU, "--roi", "top.json", "--output", "own.kanoclip")
    run("kanoclip-calibrate", "strip.kanoclip", *options, "--false-alarm-rate", "0.4", cwd=folder)
    manifest = Bundle.open(folder / "own.kanoclip").manifest
    assert manifest.tiles == TileGrid(3, 1, 0.15) and manifest.thresholds.roi is not None
    options = ("--source", "nut/test", "--bundle", "own.kanoclip", *CPU, "--roi", "top.json", "--jsonl", "own.jsonl")
    run("kanoclip-run", *options, "--no-window", cwd=folder)
    rows = [json.loads(line) for line in (folder / "own.jsonl").read_text().splitlines()]
    found = [region for row in rows for region in row["regions"]]
    assert found and all(region["y"] + region["height"] <= 251 + 4 for region in found)


def test_bench_measures_whole_frames(exported):
    folder, _ = exported
    run(
        "kanoclip-bench",
        *("strip.kanoclip", *CPU, "--rounds", 3, "--stream-seconds", 0.5, "--warmup", 1),
        *("--parts", "stages,batches,stream", "--output", "b.json"),
        cwd=folder,
    )
    told = json.loads((folder / "b.json").read_text())
    assert told["settings"]["tiles"] == "3x1" and told["settings"]["batches"] == [1]
    runner = told["runners"]["onnxruntime-cpu"]
    assert runner["fps"] == pytest.approx(1e3 / runner["p50_ms"]) and runner["stream"]["1"]["fps"] > 0


@pytest.mark.nightly
def test_an_explicit_grid_wins_over_the_default_batch(tmp_path, strips):
    images = strips / "nut" / "test" / "good"
    more = ("--tiles", "1x2", "--overlap", 0.3, "--dynamic-batch", 8, "--parity-images", images, "--json")
    done = run("kanoclip-export", *MODEL, *more, cwd=tmp_path)
    told = json.loads(done.stdout)
    assert told["tiles"] == {"rows": 1, "columns": 2, "overlap": 0.3}
    assert (told["max_batch"], told["inputs"][0]["shape"][0]) == (8, "batch")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--tiles", "0x2"], "tiles 0x2: 0 tiles in all; choose from 2 to 16"),
        (["--tiles", "5"], "tiles '5': write ROWSxCOLUMNS, such as 3x1"),
        (["--tiles", "9x9"], "tiles 9x9: 81 tiles in all; choose from 2 to 16"),
        (["--tiles", "3x1", "--overlap", "0.9"], "0.9 is not in the range 0<=x<=0.5"),
        (["--tiles", "3x1", "--overlap", "nan"], "is no number"),
        (["--tiles", "3x1", "--camera-size", "1920x1080"], "--camera-size and --tiles exclude each other"),
        (["--overlap", "0.2"], "--overlap needs --tiles"),
        (["--tiles", "auto"], "--tiles auto needs --parity-images"),
    ],
)
def test_wrong_tiles(tmp_path, flags, words):
    done = run("kanoclip-export", *MODEL, *flags, cwd=tmp_path, code=2)
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ") and words in line
    assert list(tmp_path.iterdir()) == []


def test_images_of_two_shapes_have_no_tiles_of_their_own(tmp_path, strips):
    folder = tmp_path / "mixed"
    folder.mkdir()
    strip = sorted((strips / "nut" / "test" / "good").glob("*.jpg"))[0]
    (folder / "strip.jpg").write_bytes(strip.read_bytes())
    (folder / "whole.jpg").write_bytes((EXAMPLES / strip.relative_to(strips / "nut")).read_bytes())
    done = run("kanoclip-export", *MODEL, "--tiles", "auto", "--parity-images", folder, cwd=tmp_path, code=1)
    *_, line = done.stderr.strip().splitlines()
    assert "strip.jpg" in line and "whole.jpg" in line and "no tiles suit both" in line
    assert [path.name for path in tmp_path.iterdir()] == ["mixed"]


def test_a_frame_that_is_too_small_for_its_tiles(exported, tmp_path):
    folder, _ = exported
    assert cv2.imwrite(str(tmp_path / "tiny.png"), cv2.imread(str(next((folder / "nut").rglob("*.jpg"))))[:2, :9])
    options = ("--source", tmp_path / "tiny.png", "--bundle", "strip.kanoclip", *CPU, "--no-window", "--quiet")
    _untrained, line = run("kanoclip-run", *options, cwd=folder, code=1).stderr.strip().splitlines()
    assert line.startswith("error: a frame of 9x2 pixels is too small for 3x1 tiles: pass frames of at least 1x3")
