"""`kanoclip-run --warm-up`, as a user starts it: a line that learns its part while it runs."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.detect.reference.stored.history import memory_of

from .helpers import environment, in_process

BIN = Path(sys.executable).parent
GOOD = sorted((Path(__file__).parents[2] / "examples" / "hazelnut_toy" / "test" / "good").glob("*.jpg"))

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def bundle(make_toy_bundle, tmp_path):
    return make_toy_bundle(tmp_path / "toy.kanoclip", size=64, grid=(8, 8), memory_rows=128)


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []


def test_a_line_learns_its_part_while_it_runs(bundle, tmp_path):
    """Real hazelnuts, one with a painted square, through a watched folder: what comes later is scored by a memory."""
    inbox, jsonl, sheet, copy = tmp_path / "in", tmp_path / "x.jsonl", tmp_path / "w.jpg", tmp_path / "nuts.kanoclip"
    inbox.mkdir()
    config = tmp_path / "line.toml"
    config.write_text(
        f'[engine]\nbundle = "{bundle}"\nbackend = "onnxruntime"\n[[source]]\nurl = "watch://{inbox}?existing=1"\n'
        f'[[sink]]\ntype = "jsonl"\npath = "{jsonl}"\n[run]\njson = true\nwindow = false\n'
        f'[learn]\nwarm_up = 6\nsheet = "{sheet}"\nsave = "{copy}"\n'
    )
    process = subprocess.Popen(
        [str(BIN / "kanoclip-run"), "--config", str(config)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip

    def until(holds):
        deadline = time.monotonic() + 100
        while not holds():
            if time.monotonic() > deadline or process.poll() is not None:
                process.kill()
                pytest.fail(str(process.communicate()))
            time.sleep(0.02)

    def put(name, image):
        cv2.imwrite(str(inbox / f".{name}"), image)
        (inbox / f".{name}").rename(inbox / name)

    painted = cv2.imread(str(GOOD[0]))
    painted[100:180, 100:180] = (255, 0, 255)
    for number, path in enumerate(GOOD[1:]):
        put(f"{number}.png", cv2.imread(str(path)))
    put("painted.png", painted)
    until(lambda: (copy / "manifest.json").exists())
    seen = len(lines_of(jsonl))
    put("later.png", cv2.imread(str(GOOD[0])))
    until(lambda: any(Path(line["source"]).name == "later.png" for line in lines_of(jsonl)[seen:]))
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    lines = {Path(line["source"]).name: line for line in lines_of(jsonl) if "score" in line}
    assert len(lines) == 7, "every frame has its verdict, those of the warm-up too"
    learned = json.loads(stdout)["warm_up"]["classes"]["object"]
    assert [Path(name).name for name in learned["left_out"]] == ["painted.png"]
    assert {lines[f"{n}.png"]["threshold"] for n in range(5)} == {0.5}
    assert lines["later.png"]["threshold"] == pytest.approx(learned["threshold"])
    assert f"warm-up: learned object from 5 of 6 frames; left out: 1 frame ({inbox / 'painted.png'})" in stderr
    assert (learned["sheet"], learned["saved_to"], learned["references"]) == (str(sheet), str(copy), 5)
    assert cv2.imread(str(sheet)) is not None
    saved = memory_of(Bundle.open(copy), "object")
    assert len(saved.names) == 5 and Bundle.open(copy).manifest.thresholds.image == learned["threshold"]
    assert not Bundle.open(bundle).manifest.references, "the bundle itself stays as it was"


def test_what_cannot_work_is_refused_before_a_source_is_opened(bundle, make_toy_bundle, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copy(GOOD[0], folder)
    given = ["--bundle", bundle, "--backend", "onnxruntime", "--source", folder, "--no-window"]
    for more, code, words in (
        (["--warm-up", "2"], 2, "2 is not in the range x>=3"),
        (["--warm-up-sheet", "x.jpg"], 2, "--warm-up-sheet is for what is learned: give --warm-up N as well"),
        (["--warm-up", "3", "--warm-up-sheet", "x.png"], 2, "--warm-up-sheet x.png: its name must end in .jpg"),
        (["--warm-up", "3", "--warm-up-save", "own"], 2, "--warm-up-save own: its name must end in .kanoclip"),
        (["--warm-up", "9", "--max-frames", "8"], 2, "--max-frames 8 ends the run before --warm-up 9"),
        (["--warm-up", "3", "--warm-up-save", bundle], 1, "is there already"),
    ):
        done = in_process("kanoclip-run", *given, *more)
        assert (done.returncode, words in done.stderr) == (code, True), (more, done.stderr)
    plain = make_toy_bundle(tmp_path / "plain.kanoclip")
    done = in_process("kanoclip-run", "--bundle", plain, "--source", folder, "--warm-up", "3", "--no-window")
    assert done.returncode == 1 and "takes no reference memory: export it again" in done.stderr
    done = in_process("kanoclip-run", *given, "--warm-up", "3", "--json")
    assert done.returncode == 0 and "the run ended after 1 of 3 frames of object: nothing was learned" in done.stderr
    assert json.loads(done.stdout)["warm_up"] == {"frames": 3, "classes": {}}


def test_a_folder_of_snapshots_has_the_sheet(bundle, tmp_path):
    folder, snapshots = tmp_path / "images", tmp_path / "snapshots"
    folder.mkdir()
    for path in GOOD:
        shutil.copy(path, folder)
    done = in_process(
        "kanoclip-run", "--bundle", bundle, "--backend", "onnxruntime", "--source", folder, "--no-window",
        "--warm-up", 6, "--snapshots", snapshots,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (snapshots / "warm-up.jpg").is_file()
    done = in_process(
        "kanoclip-run", "--bundle", bundle, "--backend", "onnxruntime", "--source", folder, "--no-window",
        "--warm-up", 6, "--warm-up-save", tmp_path / "own.kanoclip",
    )  # fmt: skip
    again = in_process(
        "kanoclip-run", "--bundle", tmp_path / "own.kanoclip", "--source", folder, "--warm-up", 3, "--no-window"
    )
    assert again.returncode == 1 and "has a memory of object already: leave out --warm-up" in again.stderr
