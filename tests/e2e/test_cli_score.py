"""`kanoclip-score` and `kanoclip-report` as a user starts them, and kills them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kanoclip.benchmarks.studies.streams.process_samples import children_of, sample_process

from .helpers import environment, in_process

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


def run(program, *arguments, cwd=None, seconds=120):
    process = start(program, *arguments, cwd=cwd)
    out, err = process.communicate(timeout=seconds)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def fails(done, code, *parts):
    assert done.returncode == code, (done.stdout, done.stderr)
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    for part in parts:
        assert str(part) in line, line
    assert "Traceback" not in done.stderr


def write_images(folder, count):
    """Small images that all differ, a thousand in a folder; every 997th is none."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (64, 24, 32, 3), dtype=np.uint8)
    encoded = [
        cv2.imencode(".png", cv2.GaussianBlur(one, (0, 0), 1 + n % 5) // (1 + n % 3))[1].tobytes()
        for n, one in enumerate(grey)
    ]
    for number in range(count):
        path = folder / f"{number // 1000}" / f"{number}.png"
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(b"none" if number % 997 == 996 else encoded[number % 64])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_images(folder, 1056)
    return folder


def score(bundle, source, output, *more):
    return ("--bundle", bundle, *CPU, "--source", source, "--output", output, *more)


def test_score_then_report(toy_bundle, pictures, tmp_path):
    done = run(
        "kanoclip-score", *score(toy_bundle, pictures / "1", tmp_path / "r.parquet", "--processes", "2", "--json")
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["pictures"] == 56 and told["unscored"] == 0 and told["engine"] == "onnxruntime-cpu"
    assert told["engines"] == 2 and told["scored_earlier"] == 0 and told["pictures_per_s"] > 0
    assert sorted(os.listdir(tmp_path)) == ["r.parquet"]
    reported = run("kanoclip-report", tmp_path / "r.parquet", "--json")
    assert reported.returncode == 0, reported.stderr
    assert json.loads(reported.stdout) == {
        "output": str(tmp_path / "r.html"),
        "pictures": 56,
        "anomalous": told["anomalous"],
        "unscored": 0,
        "drift": None,
    }
    page = (tmp_path / "r.html").read_text()
    assert page.startswith("<!doctype html>") and page.count('<figure class="case">') == 32


def test_killed_three_times_and_started_again(toy_bundle, pictures, tmp_path):
    """With all that it started; the table is the one of a run that nobody touched, to the byte."""
    straight = run("kanoclip-score", *score(toy_bundle, pictures, tmp_path / "straight.parquet", "--processes", "1"))
    fails(straight, 1, "1 of 1056 images could not be scored")
    again = score(toy_bundle, pictures, tmp_path / "killed.parquet", "--processes", "2")
    for least in (2, 6, 11):
        process = start("kanoclip-score", *again)
        parts = tmp_path / "killed.parquet.run" / "parts"
        deadline = time.monotonic() + 60
        while len(list(parts.glob("*.parquet"))) < least and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.005)
        workers = children_of(process.pid)
        process.kill()
        process.communicate()
        deadline = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)  # nobody scores for nobody
        assert not (tmp_path / "killed.parquet").exists()
    done = run("kanoclip-score", *again, "--json")
    told = json.loads(done.stdout)
    assert 11 * 64 <= told["scored_earlier"] < 1056 == told["pictures"]
    assert (tmp_path / "killed.parquet").read_bytes() == (tmp_path / "straight.parquet").read_bytes()
    assert not (tmp_path / "killed.parquet.run").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal(toy_bundle, pictures, tmp_path, number):
    process = start("kanoclip-score", *score(toy_bundle, pictures, tmp_path / "r.parquet", "--processes", "1"))
    parts = tmp_path / "r.parquet.run" / "parts"
    while len(list(parts.glob("*.parquet"))) < 2 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    done = subprocess.CompletedProcess([], process.returncode, out, err)
    fails(done, 1 if number == signal.SIGTERM else 130, "SIGTERM" if number == signal.SIGTERM else "interrupted")
    assert parts.is_dir() and children_of(process.pid) == []


def test_a_reader_of_a_table_with_classes(make_toy_bundle, pictures, tmp_path):
    bundle = make_toy_bundle(tmp_path / "two.kanoclip", classes=("plain", "inverse"))
    names = [str(pictures / "0" / f"{n}.png") for n in range(8)]
    pq.write_table(pa.table({"file": names, "kind": ["plain", "inverse"] * 4}), tmp_path / "list.parquet")
    options = ("--column", "file", "--class-column", "kind", "--maps", tmp_path / "maps")
    done = run("kanoclip-score", *score(bundle, tmp_path / "list.parquet", tmp_path / "r.parquet", *options))
    assert done.returncode == 0, done.stderr
    table = pq.read_table(tmp_path / "r.parquet")
    assert table["path"].to_pylist() == names and table["class"].to_pylist() == ["plain", "inverse"] * 4
    assert sum(1 for _ in (tmp_path / "maps").rglob("*.png")) == 8
    reported = run("kanoclip-report", tmp_path / "r.parquet", "--maps", tmp_path / "maps", "--no-pictures")
    assert reported.returncode == 0 and "<td>inverse</td>" in (tmp_path / "r.html").read_text()


def test_drift_fails_where_it_is_asked_to(toy_bundle, tmp_path):
    for name, light in (("bright", 200), ("dark", 90)):
        (tmp_path / name).mkdir()
        for n in range(60):
            level = light + np.random.default_rng(n).normal(0, 9)
            assert cv2.imwrite(str(tmp_path / name / f"{n}.png"), np.full((20, 20, 3), level, np.uint8))
        assert run("kanoclip-score", *score(toy_bundle, name, f"{name}.parquet"), cwd=tmp_path).returncode == 0
    same = run("kanoclip-report", "dark.parquet", "--reference", "dark.parquet", "--fail-on-drift", cwd=tmp_path)
    assert same.returncode == 0 and "changed" not in same.stderr
    done = run(
        "kanoclip-report", "dark.parquet", "--reference", "bright.parquet", "--fail-on-drift", "--json", cwd=tmp_path
    )
    assert done.returncode == 1
    drift = json.loads(done.stdout)["drift"]
    assert drift["level"] == drift["figures"]["brightness"]["level"] == "marked"
    assert "changed: " in done.stderr and "lighting" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--source", "nowhere", "--output", "r.parquet"], 1, "nowhere: no such file or folder"),
        (["--source", ".", "--output", "r.csv"], 2, "the table is a .parquet file"),
        (["--source", ".", "--output", "none/r.parquet"], 1, "cannot be written"),
        (["--source", ".", "--output", "r.parquet", "--class", "cat"], 2, "'cat' is not in this bundle"),
        (["--source", ".", "--output", "r.parquet", "--class-column", "kind"], 1, "only a .parquet table"),
        (["--source", ".", "--output", "r.parquet", "--ray", "--device", "cuda:1"], 2, "ask for cuda"),
        (["--source", ".", "--output", "r.parquet", "--slice", "0"], 2, "--slice"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(toy_bundle, tmp_path, arguments, code, told):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((9, 9, 3), np.uint8))
    done = in_process("kanoclip-score", "--bundle", toy_bundle, *arguments, cwd=tmp_path, env=environment())
    fails(done, code, told)
    assert os.listdir(tmp_path) == ["a.png"]


def test_without_pyarrow_one_line_says_what_to_install(tmp_path):
    script = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from kanoclip.runtime.cli.main import invoke\n"
        "sys.exit(invoke('kanoclip-score', 'score', ['--source', '.', '--output', 'r.parquet']))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    fails(done, 1, "pip install 'kanoclip-edge[score]'")


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_twenty_thousand_images_killed_three_times(toy_bundle, tmp_path):
    write_images(tmp_path / "pictures", 20_000)
    once = score(toy_bundle, tmp_path / "pictures", tmp_path / "straight.parquet", "--processes", "2")
    fails(run("kanoclip-score", *once, seconds=1500), 1, "20 of 20000")
    again = score(toy_bundle, tmp_path / "pictures", tmp_path / "killed.parquet", "--processes", "2")
    parts = tmp_path / "killed.parquet.run" / "parts"
    pick = random.Random(3)
    for least in (30, 120, 220):
        process = start("kanoclip-score", *again)
        while len(list(parts.glob("*.parquet"))) < least and process.poll() is None:
            time.sleep(0.02)
        time.sleep(pick.random())
        process.kill()
        process.communicate()
    done = run("kanoclip-score", *again, "--json", seconds=1500)
    assert 220 * 64 <= json.loads(done.stdout)["scored_earlier"] < 20_000
    assert (tmp_path / "killed.parquet").read_bytes() == (tmp_path / "straight.parquet").read_bytes()
    table = pq.read_table(tmp_path / "killed.parquet")
    assert table.num_rows == len(set(table["path"].to_pylist())) == 20_000


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_memory_over_a_hundred_thousand_paths(toy_bundle, tmp_path):
    """While images are scored no process grows; merging takes a row group's room, however many there are."""
    write_images(tmp_path / "pictures", 100_000)
    process = start(
        "kanoclip-score",
        *score(toy_bundle, tmp_path / "pictures", tmp_path / "r.parquet", "--processes", "2", "--json"),
    )
    parts = tmp_path / "r.parquet.run" / "parts"
    first, most, merging = {}, {}, 0.0
    begun = scored = False
    while process.poll() is None:
        time.sleep(0.5)
        scored = scored or sum(1 for _ in parts.glob("*.parquet")) == -(-100_000 // 64)
        begun = begun or sum(1 for _ in parts.glob("*.parquet")) >= 160
        for pid in [process.pid, *children_of(process.pid)] if begun else []:
            with suppress(OSError):  # it has just ended
                size = sample_process(pid).anonymous_mb
                if scored:
                    merging = max(merging, size)
                else:
                    first.setdefault(pid, size)
                    most[pid] = max(most.get(pid, 0.0), size)
    out, err = process.communicate()
    assert json.loads(out)["pictures"] == 100_000, err
    growth = {pid: (round(first[pid], 1), round(most[pid], 1)) for pid in first}
    print("memory of their own in MB after ten thousand images, and at the most:", growth, merging, json.loads(out))
    assert len(growth) >= 3
    assert all(high - low < 6 for low, high in growth.values()), growth
    assert 0 < merging < 160
