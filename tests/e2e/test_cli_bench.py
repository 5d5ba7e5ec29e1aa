"""`kanoclip-bench` as a user starts it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from .helpers import in_process

BIN = Path(sys.executable).parent

pytestmark = pytest.mark.timeout(400)


def kanoclip_bench(*arguments, cwd, env=None):
    command = [str(BIN / "kanoclip-bench"), *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=380,
        env={**os.environ, "COLUMNS": "200", **(env or {})},
    )


@pytest.fixture
def toy(tmp_path, make_toy_bundle):
    return make_toy_bundle(tmp_path / "toy.kanoclip", dynamic=True, max_batch=4, samples=2)


class Page(HTMLParser):
    """Counts tags and checks that each is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("limits", [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_a_lean_box_measures_the_shipped_bundle_and_the_machines_limits(tmp_path, limits):
    """No torch, onnx or OpenVINO: whoever imports one is told that it is not installed."""
    for name in ("torch", "onnx", "openvino"):
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('No module {name}', name='{name}')\n")
    files = ["--output", "r.json", "--markdown", "r.md", "--html", "r.html"]
    done = kanoclip_bench(
        *("--rounds", 3, "--backend", "onnxruntime", "--device", "cpu", "--compare", "torch", *files),
        *("--parts", "latency,stages,start" + ",roofline" * limits),
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "r.json").read_text())
    assert told["left_out"] == {"torch": "torch is not installed"} and "torch was left out" in done.stdout
    assert told["environment"]["cores"] >= 1 and told["bundle"]["name"] == "nano"
    assert isinstance(told["quiet"]["quiet"], bool) and told["quiet"]["others"] >= 0
    runner = told["runners"]["onnxruntime-cpu"]
    assert len(runner["rounds_ms"]) == 3 and runner["p50_ms"] <= runner["p90_ms"] <= runner["p99_ms"]
    stages = runner["stages_ms"]
    assert list(stages) == ["capture", "resize", "upload", "inference", "download", "decide", "draw"]
    assert stages["upload"] is None and stages["inference"] > 0 and stages["capture"] > 0 and stages["draw"] > 0
    assert runner["start"]["first_verdict_s"] > 0.1 and 50 < runner["start"]["peak_memory_mb"] < 800
    if limits:
        ways = told["peaks"]["gemm_ways"]["cpu"]["fp32"]
        assert ways["numpy"] > 1 and ways["onnxruntime"] > 1 and "torch" in ways["torch"]
        best = told["peaks"]["gemm_gflops"]["cpu"]["fp32"]
        assert best["value"] == max(ways["numpy"], ways["onnxruntime"]) and best["by"].split(",")[0] in (
            "numpy",
            "onnxruntime",
        )
        roof = runner["roofline"]
        assert roof["milliseconds"] == pytest.approx(told["bundle"]["work"]["gemm_flops"] / best["value"] / 1e6)
        assert roof["share"] == pytest.approx(roof["milliseconds"] / runner["p50_ms"])
        assert re.search(r"onnxruntime-cpu: \d+% of what this machine can do", done.stdout.splitlines()[-1])

    markdown = (tmp_path / "r.md").read_text()
    assert ("% of what this machine can do" in markdown) == limits and "| onnxruntime-cpu |" in markdown
    text = (tmp_path / "r.html").read_text()
    page = Page(text)
    assert page.tags.count("svg") == 2 + limits, "latency, stages and, if measured, roofline"
    assert page.tags.count("table") == 3, "latency, stages, start"
    assert page.links == [] and "script" not in page.tags and "http" not in text, "it needs nothing beside it"


@pytest.mark.nightly
def test_throughput_against_batch_and_of_streams(tmp_path, toy):
    done = kanoclip_bench(
        *("--rounds", 4, "--backend", "onnxruntime", "--compare", "openvino", "--device", "cpu"),
        *("--parts", "batches,stream", "--stream-seconds", "0.3", "--output", "r.json", "--html", "r.html"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "r.json").read_text())
    assert list(told["runners"]) == ["onnxruntime-cpu", "openvino-cpu"]
    assert told["settings"]["reference"] == "openvino-cpu" and told["runners"]["openvino-cpu"]["ratio"]["value"] == 1
    for runner in told["runners"].values():
        assert list(runner["batches_fps"]) == ["1", "2", "4"] and min(runner["batches_fps"].values()) > 0
        for stream in runner["stream"].values():
            assert stream["fps"] > 0 and 0 < stream["inside_inference"] <= 1
        assert runner["drift"]["map"] < 1e-5 and "stages_ms" not in runner and "start" not in runner
    assert "Throughput against batch" in (tmp_path / "r.html").read_text()


def test_a_killed_run_goes_on_where_it_was(tmp_path, toy):
    arguments = ["--rounds", 150, "--backend", "onnxruntime", "--device", "cpu", "--parts", "latency"]
    arguments += ["--resume", "rounds.jsonl", "--output", "r.json"]
    journal = tmp_path / "rounds.jsonl"
    killed = subprocess.Popen(
        [str(BIN / "kanoclip-bench"), *map(str, arguments)], cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    until = time.monotonic() + 120
    while not journal.exists() or journal.read_bytes().count(b"\n") < 20:
        assert killed.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "r.json").exists()
    before = [json.loads(line) for line in journal.read_bytes().splitlines()[1:-1]]
    assert 15 < len(before) < 149

    other = kanoclip_bench(*arguments, "--warmup", 1, cwd=tmp_path)
    assert other.returncode == 1 and "differs in settings" in other.stderr
    done = kanoclip_bench(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "r.json").read_text())
    rounds = told["runners"]["onnxruntime-cpu"]["rounds_ms"]
    assert len(rounds) == 150 and rounds[: len(before)] == [line["result"][0] for line in before]
    assert told["settings"]["pieces_of_an_earlier_run"] >= len(before)


def test_a_baseline_that_was_faster_fails_the_run(tmp_path, toy):
    arguments = ["--rounds", 20, "--backend", "onnxruntime", "--device", "cpu", "--parts", "latency"]
    done = kanoclip_bench(*arguments, "--output", "old.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    old = json.loads((tmp_path / "old.json").read_text())

    def against(factor=1.0, *more, **changes):
        changed = json.loads(json.dumps(old))
        runner = changed["runners"]["onnxruntime-cpu"]
        runner["rounds_ms"] = [time * factor for time in runner["rounds_ms"]]
        for part, values in changes.items():
            changed[part].update(values)
        (tmp_path / "changed.json").write_text(json.dumps(changed))
        return kanoclip_bench(*arguments, "--baseline", "changed.json", "--output", "new.json", *more, cwd=tmp_path)

    slower = against(0.02)
    assert slower.returncode == 3 and "SLOWER by more than 5%" in slower.stdout and slower.stderr == ""
    told = json.loads((tmp_path / "new.json").read_text())["baseline"]["changes"]["onnxruntime-cpu"]
    assert told["regressed"] and 1.05 < told["low"] <= told["value"] <= told["high"]
    elsewhere = against(1.0, environment={"cpu": "Another 9000"})
    assert elsewhere.returncode == 1 and elsewhere.stdout == ""
    assert re.fullmatch(
        r"error: --baseline .* cpu 'Another 9000' there, .*--force compares all the same\n", elsewhere.stderr
    )
    assert "another bundle's graph" in against(1.0, bundle={"graph": "0" * 64}).stderr
    forced = against(50.0, "--force", environment={"cpu": "Another 9000"})
    assert forced.returncode == 0 and "within what is allowed" in forced.stdout, forced.stderr


@pytest.mark.parametrize("content", ["", "[]", '{"format": "kanoclip-bench", "version": 1}', '{"format": "x"}', None])
def test_what_is_no_baseline_is_refused_before_anything_is_measured(tmp_path, toy, content):
    if content is not None:
        (tmp_path / "old.json").write_text(content)
    done = in_process("kanoclip-bench", "--baseline", "old.json", cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: --baseline old.json ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--compare", "torch,tensorflow"], "'tensorflow' is no runner"),
        (["--parts", "latency,sound"], "'sound' is no part"),
        (["--output", "none/r.json"], "none is no folder"),
        (["--max-regression", "nan"], "0 or more"),
        (["--rounds", "0"], "--rounds"),
    ],
)
def test_wrong_usage(tmp_path, arguments, words):
    done = in_process("kanoclip-bench", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
