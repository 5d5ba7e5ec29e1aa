"""`kanoclip-calibrate` as a user starts it, and `kanoclip-run` with what it set, on real photographs."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from kanoclip.runtime.bundle.bundle import Bundle, shipped_bundle
from kanoclip.runtime.bundle.store import locked
from kanoclip.runtime.cli.main import invoke

from .helpers import environment

EXAMPLES = Path(__file__).parents[2] / "examples" / "hazelnut_toy" / "test"
BIN = Path(sys.executable).parent
CPU = ("--backend", "onnxruntime", "--device", "cpu")

pytestmark = pytest.mark.timeout(180)


def start(program, *arguments, cwd=None):
    return subprocess.Popen(
        [str(BIN / program), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=cwd,
    )


def run(program, *arguments, cwd=None):
    process = start(program, *arguments, cwd=cwd)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def calibrate(*arguments, cwd=None):
    return run("kanoclip-calibrate", *arguments, cwd=cwd)


def fails(done, code, *parts):
    assert done.returncode == code, (done.stdout, done.stderr)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("warning:")]
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    for part in parts:
        assert str(part) in lines[0], lines[0]
    assert "Traceback" not in done.stderr


@pytest.fixture
def own(toy_bundle, tmp_path):
    return Path(shutil.copytree(toy_bundle, tmp_path / "own.kanoclip"))


@pytest.fixture
def good(tmp_path):
    """59 dark images of different levels; the toy's score and map are their grey level."""
    folder = tmp_path / "good"
    folder.mkdir()
    levels = np.random.default_rng(1).permutation(59) + 20
    for number, level in enumerate(levels):
        assert cv2.imwrite(str(folder / f"{number:02}.png"), np.full((32, 32, 3), level, np.uint8))
    return folder


def manifest(folder):
    return Bundle.open(folder).manifest


def test_calibrate_then_run_on_photographs(tmp_path):
    """A copy of the shipped bundle, calibrated inside of polygons by good nuts, finds the stained ones."""
    copy, plot, lines = tmp_path / "nuts.kanoclip", tmp_path / "scores.png", tmp_path / "frames.jsonl"
    (tmp_path / "nut.json").write_text(
        json.dumps({"units": "relative", "keep": [[[0.05, 0.05], [0.95, 0.05], [0.95, 0.95], [0.05, 0.95]]]})
    )
    (tmp_path / "line.toml").write_text(
        '[decision]\nroi = "nut.json"\nalarm = "2/3"\n\n[class.object]\nmin_area = 30\n'
    )
    before = (shipped_bundle() / "manifest.json").read_bytes()
    done = calibrate(
        "--source", EXAMPLES / "good", "--bad", EXAMPLES / "colour", "--false-alarm-rate", 0.15,
        "--config", tmp_path / "line.toml", "--output", copy, "--plot", plot, "--json", *CPU, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["frames"], told["allowed_above"], told["confidence"], told["class"]) == (6, 0, None, "object")
    assert (told["roi"], told["alarm"], told["written_to"]) == ("nut.json", "2/3", str(copy))
    caught = told["image"]["caught"]
    assert (
        caught["frames"] == 17 and caught["hits"] >= 12 and caught["low"] < caught["hits"] / 17 < caught["high"] + 1e-9
    )
    assert "17 bad frames reach the image threshold" in done.stderr and f"written to {copy}" in done.stderr
    assert (shipped_bundle() / "manifest.json").read_bytes() == before
    thresholds = manifest(copy).thresholds
    assert (thresholds.image, thresholds.pixel) == (told["image"]["threshold"], told["pixel"]["threshold"])
    assert "conformal: false-alarm rate 0.15 by 6 good frames inside of nut.json, onnxruntime-cpu" in thresholds.origin
    assert cv2.imread(str(plot)).shape == (720 + 480, 960, 3)  # with the recall

    out = tmp_path / "out"
    done = run(
        "kanoclip-run", "--bundle", copy, "--source", EXAMPLES, "--config", tmp_path / "line.toml",
        "--jsonl", lines, "--output", out, *CPU, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert {row["threshold"] for row in rows} == {round(thresholds.image, 6)}
    assert not any(row["is_anomalous"] for row in rows if "/good/" in row["source"])
    assert sum(row["is_anomalous"] for row in rows) == caught["hits"]
    assert all(region["area"] >= 30 for row in rows for region in row["regions"])
    verdicts = [row["is_anomalous"] for row in rows]
    assert [row["alarm"] for row in rows] == [sum(verdicts[max(0, n - 2) : n + 1]) >= 2 for n in range(len(rows))]
    outlined = cv2.imread(str(out / "good" / "04.jpg"))
    plain = cv2.imread(str(EXAMPLES / "good" / "04.jpg"))
    left = round(0.05 * plain.shape[1])
    column = outlined[-plain.shape[0] // 2, left - 4 : left + 5].astype(int)
    assert (column[:, 0] - column[:, 2]).max() > 60  # the outline's cyan

    done = run("kanoclip-run", "--bundle", copy, "--source", EXAMPLES / "good", *CPU, cwd=tmp_path)
    assert done.returncode == 0 and "calibrated inside of another region of interest" in done.stderr


def test_in_place_with_the_thresholds_that_the_levels_give(own, good):
    done = calibrate(own, "--source", good, "--false-alarm-rate", 0.05, *CPU)
    assert done.returncode == 0, done.stderr
    found = manifest(own)
    # Rank ceil(60 * 0.95) = 57 of levels 20 to 78, and just above it.
    assert found.thresholds.image == pytest.approx(76 / 255, abs=1e-6) and found.thresholds.image > 76 / 255 - 1e-7
    assert found.thresholds.pixel == pytest.approx(76 / 255, abs=1e-6)
    assert "image 0.5, pixel 0.5, min_area 0 (made up for tests)" in found.provenance.values()
    assert f"image threshold {found.thresholds.image:.6f} (was 0.500000)" in done.stdout
    assert f"written to {own}" in done.stdout
    lines = good / "frames.jsonl"
    run("kanoclip-run", "--bundle", own, "--source", good, "--jsonl", lines, *CPU)
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert sum(row["is_anomalous"] for row in rows) == sum(bool(row["regions"]) for row in rows) == 2


def test_a_dry_run_changes_nothing(own, good):
    before = (own / "manifest.json").read_bytes()
    done = calibrate(own, "--source", good, "--false-alarm-rate", 0.05, "--dry-run", "--min-area", 3, "--json", *CPU)
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["written_to"] is None and told["min_area"] == 3
    assert "nothing was changed" in done.stderr
    assert (own / "manifest.json").read_bytes() == before


def test_too_few_frames_are_refused_before_the_engine_is_made(own, good):
    done = calibrate(own, "--source", good, "--false-alarm-rate", 0.001)
    fails(done, 1, "59 good frames are too few", "takes 999", "enough for 0.017")
    fails(calibrate(own, "--source", good, "--every", 2, "--false-alarm-rate", 0.02), 1, "30 good frames", "takes 49")
    done = calibrate(own, "--source", good, "--confidence", 0.96, "--false-alarm-rate", 0.05)
    fails(done, 1, "with confidence 0.96: it takes 63")
    unasked = calibrate("--source", good, "--false-alarm-rate", 0.05, cwd=own.parent)
    fails(unasked, 2, "name the bundle whose thresholds are set", "--output NAME.kanoclip")
    fails(calibrate("builtin", "--source", good, "--false-alarm-rate", 0.05), 1, "belongs to the package")
    assert manifest(own).thresholds.image == 0.5


def test_what_is_refused_at_the_door(own, good, tmp_path, capsys):
    """In this process: a start of Python for each would take longer than the rest of the file."""

    def refuses(code, *words, arguments):
        assert invoke("kanoclip-calibrate", "calibrate", [str(a) for a in arguments]) == code
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and all(str(word) in line for word in words), line

    given, rate = (own, "--source", good), ("--false-alarm-rate", 0.05)
    refuses(1, "belongs to the package", "--output NAME", arguments=(shipped_bundle(), "--source", good, *rate))
    refuses(1, "is there already", arguments=(*given, "--output", own, *rate))
    refuses(2, "exactly one of --source", "--camera", arguments=(own,))
    refuses(2, "exactly one", arguments=(*given, "--camera", 0))
    refuses(2, "'nut' is not in this bundle", arguments=(*given, "--class", "nut"))
    refuses(2, ".png only", arguments=(*given, "--plot", "x.jpg"))
    refuses(2, "--false-alarm-rate", arguments=(*given, "--false-alarm-rate", 0))
    refuses(2, "is no number", arguments=(*given, "--false-alarm-rate", "nan"))
    refuses(2, "--confidence", arguments=(*given, "--confidence", 0.3))
    refuses(2, "--alarm", "5/3", arguments=(*given, "--alarm", "5/3"))
    refuses(2, "'x' is not a camera", arguments=(own, "--camera", "x"))
    refuses(1, "no such file or folder", arguments=(own, "--source", "none"))
    (tmp_path / "line.toml").write_text("[decision]\n\npixel_treshold = 0.5\n")
    refuses(1, "line 3", "did you mean", arguments=(*given, "--config", tmp_path / "line.toml"))
    (tmp_path / "line.toml").write_text("[class.nut]\nthreshold = 0.5\n")
    refuses(1, "[class.nut] is not in", arguments=(*given, *rate, "--config", tmp_path / "line.toml"))
    (tmp_path / "roi.json").write_text('{"units": "pixels", "keep": [[[0, 0], [9, 0], [9, 9]]]}')
    refuses(1, "roi.json", "need size", arguments=(*given, "--roi", tmp_path / "roi.json"))
    (tmp_path / "roi.json").write_text('{"units": "pixels", "size": [64, 36], "keep": [[[0, 0], [9, 0], [9, 9]]]}')
    refuses(1, "drawn on an image of 64x36", "32x32", arguments=(*given, "--roi", tmp_path / "roi.json", *rate, *CPU))
    assert manifest(own).thresholds.image == 0.5


def test_a_bundle_of_several_classes_is_calibrated_class_by_class(make_toy_bundle, tmp_path, good):
    two = make_toy_bundle(tmp_path / "two.kanoclip", classes=("nut", "wood screw"))
    rate = ("--false-alarm-rate", 0.05)
    fails(calibrate(two, "--source", good, *rate), 2, "--class", "nut, wood screw")
    done = calibrate(two, "--source", good, "--class", "wood screw", *rate, *CPU)
    assert done.returncode == 0, done.stderr
    found = manifest(two)
    # The toy inverts the map for its second class.
    assert found.thresholds_of("wood screw").image == pytest.approx(1 - 22 / 255, abs=1e-6)
    assert found.thresholds_of("nut").image == 0.5


def test_a_video_is_not_taken_for_independent_frames(own, tmp_path):
    path = tmp_path / "belt.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 48))
    for level in np.random.default_rng(0).integers(20, 120, 40).repeat(10):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    (tmp_path / "line.toml").write_text("[decision]\nthreshold = 0.9\n")
    arguments = (own, "--source", path, "--false-alarm-rate", 0.03, "--dry-run", *CPU)
    done = calibrate(*arguments, "--config", tmp_path / "line.toml")
    assert done.returncode == 0, done.stderr
    assert "neighbouring frames look alike: these 400 count as about" in done.stderr
    assert "--every" in done.stderr
    assert "line.toml sets threshold, which overrides the bundle" in done.stderr
    done = calibrate(*arguments, "--every", 10)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "40 good frames" in done.stdout


def test_unreadable_images_are_told_and_bad_folders_without_any_refused(own, good, tmp_path):
    (good / "zz.png").write_bytes(b"no image")
    done = calibrate(own, "--source", good, "--false-alarm-rate", 0.05, *CPU)
    assert done.returncode == 0 and "1 good images could not be read" in done.stderr
    empty = tmp_path / "bad"
    empty.mkdir()
    before = (own / "manifest.json").read_bytes()
    fails(calibrate(own, "--source", good, "--bad", empty, "--false-alarm-rate", 0.05, *CPU), 1, "no images")
    (empty / "x.png").write_bytes(b"no image")
    fails(calibrate(own, "--source", good, "--bad", empty, "--false-alarm-rate", 0.05, *CPU), 1, "can be read")
    assert (own / "manifest.json").read_bytes() == before


def test_an_interrupted_calibration_changes_nothing(own, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    big = np.random.default_rng(0).integers(0, 255, (2000, 3000, 3), np.uint8)
    assert cv2.imwrite(str(folder / "0.png"), big)
    for number in range(1, 200):
        (folder / f"{number}.png").hardlink_to(folder / "0.png")
    before = (own / "manifest.json").read_bytes()
    process = start("kanoclip-calibrate", own, "--source", folder, "--false-alarm-rate", 0.05, *CPU)
    deadline = time.monotonic() + 60
    handled = Path(f"/proc/{process.pid}/status")
    while not int(next(x for x in handled.read_text().splitlines() if x.startswith("SigCgt")).split()[1], 16) >> 14 & 1:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "error: interrupted after" in err and "nothing was changed" in err
    assert (own / "manifest.json").read_bytes() == before


def test_a_second_writer_is_refused(own, good):
    before = manifest(own)
    with locked(own):
        fails(calibrate(own, "--source", good, "--false-alarm-rate", 0.05, *CPU), 1, "another process")
    assert manifest(own) == before


def test_a_folder_tells_good_from_bad(own, good, tmp_path):
    """`test/good` beside `test/spot`: no flag says so; the rate is what 59 frames carry."""
    place = tmp_path / "test"
    shutil.move(good, place / "good")
    for number, level in enumerate((75, 130, 200, 250)):
        name = "spot" if number < 3 else "hole"
        (place / name).mkdir(exist_ok=True)
        cv2.imwrite(str(place / name / f"{number}.png"), np.full((32, 32, 3), level, np.uint8))
    cv2.imwrite(str(place / "loose.png"), np.full((32, 32, 3), 255, np.uint8))
    given = (own, "--source", place, "--json", *CPU)
    done = calibrate(*given)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["frames"], told["allowed_above"], told["image"]["caught"]["hits"]) == (59, 0, 3)
    assert told["false_alarm_rate"] == pytest.approx(1 / 60)
    assert {one["name"]: one["frames"] for one in told["recall"]["folders"]} == {"hole": 1, "spot": 3, "all": 4}
    for line in ("59 good images by the folders' names, 4 bad ones (hole, spot)", "1 images beside no folder", "░ 75%"):
        assert line in done.stderr
    names = [line for line in done.stderr.splitlines() if line.startswith("the good frames with the highest scores")]
    assert names and f"{place}/good/" in names[0]
    # All of the bad ones, whatever it costs: three good frames are as bright as the darkest bad one, or brighter.
    caught = json.loads(calibrate(*given, "--catch", 1).stdout)
    assert caught["catch"] == 1 and caught["image"]["caught"]["hits"] == 4
    assert caught["allowed_above"] == sum(level >= 75 for level in range(20, 79))
    assert "catch: 1 of 4 bad frames; 4 of 59 good ones reach it" in caught["origin"] == manifest(own).thresholds.origin
    fails(calibrate(*given, "--catch", 0.9, "--false-alarm-rate", 0.1), 2, "give one")
    fails(calibrate(own, "--source", place / "good", "--catch", 0.9, *CPU), 1, "no bad frames to catch")


def test_a_bundle_is_an_argument_or_an_option(own, good, tmp_path):
    rate = ("--false-alarm-rate", 0.05, "--dry-run", "--quiet", *CPU)
    done = calibrate("--bundle", own, "--source", good, *rate)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    fails(calibrate(own, "--bundle", tmp_path / "other", "--source", good, *rate), 2, "two bundles: name one")
    line = run("kanoclip-run", own, "--source", good, "--no-table", *CPU)
    assert line.returncode == 0 and str(own) in line.stdout
    fails(run("kanoclip-run", good), 2, "is no bundle: to score it, give --source")
