"""Figures in bounded memory, and what is printed of them."""

from __future__ import annotations

import io
import json
from collections import deque
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from kanoclip.runtime.cli.terminal.status import ImageTable, StatusLine, print_summary, status_text, summary_json
from kanoclip.runtime.stream.control.figures import Latency, cost_of, latency_of, rate_of
from kanoclip.runtime.stream.control.progress import Progress, RunSummary, SourceProgress, StageSummary
from kanoclip.runtime.stream.counters import RESERVOIR, WINDOW, StageStats, Tally
from kanoclip.runtime.types import BadFrame, Detection, Frame, Timings

SUMMARY = RunSummary(
    frames=7,
    anomalous=2,
    skipped=1,
    dropped=3,
    sink_dropped={"video": 4},
    wall_s=2.0,
    stages=(
        StageSummary("capture", 7, 1.5, 1.0, 2.0, 2.5, 1.25),
        StageSummary("inference", 7, 30.0, 29.0, 35.0, 41.0),
        StageSummary("video", 3, 2.25, 2.0, 3.0, 3.5, 0.5),
    ),
    interrupted=True,
    sources=(SourceProgress("camera 0", 7, 2, 1, 3, 3.5, 0.5, 1.7e9, True, None),),
)
PROGRESS = Progress(12, 3, 1, 5, {"jsonl": 2}, 24.96, 33.4, 51.7, 60.2, 0.1234, last_threshold=0.5)


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=RESERVOIR))
def test_short_runs_have_exact_figures(values):
    stats = StageStats("x")
    for value in values:
        stats.add(value)
    summary = cost_of(stats)
    assert summary.count == len(values)
    assert summary.mean == pytest.approx(np.mean(values))
    assert summary.p50 == pytest.approx(np.percentile(values, 50))
    assert summary.p95 == pytest.approx(np.percentile(values, 95))
    assert summary.p99 == pytest.approx(np.percentile(values, 99))


def test_long_runs_stay_small_and_close():
    values = np.random.default_rng(1).permutation(20 * RESERVOIR).astype(float)
    stats = StageStats("x")
    for value in values:
        stats.add(value)
    assert len(stats.sample) == RESERVOIR
    summary = cost_of(stats)
    assert summary.mean == pytest.approx(values.mean())
    assert summary.p50 == pytest.approx(np.percentile(values, 50), rel=0.1)
    assert summary.p95 == pytest.approx(np.percentile(values, 95), rel=0.03)
    assert summary.p99 == pytest.approx(np.percentile(values, 99), rel=0.02)


def test_nothing_measured_gives_zeros():
    assert cost_of(StageStats("x")) == StageSummary("x", 0, 0.0, 0.0, 0.0, 0.0)
    assert rate_of(deque(), 5.0) == 0.0
    assert latency_of(deque()) == Latency(0.0, 0.0, 0.0)


def test_the_window_forgets_what_is_old():
    window = Tally([], recent=True).times
    for index in range(1000):
        window.append((index * 1.0, 500.0))
    for index in range(WINDOW):
        window.append((1000 + index * 0.1, 20.0))
    assert rate_of(window, 1000 + 25.6) == pytest.approx(10)
    assert latency_of(window) == Latency(20.0, 20.0, 20.0)


def test_the_rate_of_a_stream_that_stands_still_sinks():
    window = Tally([], recent=True).times
    for index in range(300):
        window.append((index / 30, 20.0))
    last = 299 / 30
    assert rate_of(window, last + 0.9) == pytest.approx(30), "a moment's silence means nothing"
    assert rate_of(window, last + 10) == pytest.approx(0.1)
    slow = Tally([], recent=True).times
    slow.append((0.0, 20.0))
    slow.append((4.0, 20.0))
    assert rate_of(slow, 10.0) == pytest.approx(0.25), "a frame takes four seconds here"


def test_percentiles_of_a_live_stream_are_of_its_last_frames():
    stats = StageStats("x", recent=True)
    for _ in range(10 * RESERVOIR):
        stats.add(1.0)
    for _ in range(RESERVOIR):
        stats.add(12.0)
    summary = cost_of(stats)
    assert (summary.p50, summary.p95, summary.p99) == (12.0, 12.0, 12.0)
    assert (summary.count, summary.mean) == (11 * RESERVOIR, pytest.approx(2.0))


def test_the_status_text_has_every_figure():
    text = status_text(PROGRESS)
    for part in (
        "25.0 fps",
        "p50 33 p95 52 ms",
        "dropped 5",
        "jsonl dropped 2",
        "skipped 1",
        "score 0.123",
        "anomalous 3/12",
    ):
        assert part in text


@pytest.mark.parametrize("total", [None, 20])
def test_the_status_line_shows_on_a_terminal_only(total):
    for terminal in (True, False):
        stream = io.StringIO()
        with StatusLine(Console(file=stream, force_terminal=terminal, width=140), total) as status:
            status.update(PROGRESS)
        assert ("25.0 fps" in stream.getvalue()) is terminal
        assert ("18/20" in stream.getvalue()) is (terminal and total is not None)
        if not terminal:
            assert stream.getvalue().strip() == ""


def text_of(draw, width=100):
    stream = io.StringIO()
    draw(Console(file=stream, width=width))
    return stream.getvalue()


def test_the_summary_is_complete():
    text = text_of(lambda console: print_summary(console, SUMMARY, timings=True))
    assert "7 frames in 2.0 s (3.5 fps): 2 anomalous, 1 skipped, 3 dropped; stopped early" in text
    assert "video: 4 results dropped" in text
    assert "outside inference: 3.75 ms a frame" in text
    row = next(line for line in text.splitlines() if "inference" in line and "30.00" in line)
    assert "29.00" in row and "35.00" in row and "41.00" in row
    short = text_of(lambda console: print_summary(console, SUMMARY, timings=False))
    assert "2 anomalous" in short and "inference" not in short


def test_the_summary_as_json():
    values = json.loads(json.dumps(summary_json(SUMMARY), allow_nan=False))
    assert values == {
        "frames": 7,
        "anomalous": 2,
        "skipped": 1,
        "dropped": 3,
        "sink_dropped": {"video": 4},
        "wall_s": 2.0,
        "stages": {
            "capture": {"count": 7, "mean": 1.5, "p50": 1.0, "p95": 2.0, "p99": 2.5, "cpu": 1.25},
            "inference": {"count": 7, "mean": 30.0, "p50": 29.0, "p95": 35.0, "p99": 41.0, "cpu": None},
            "video": {"count": 3, "mean": 2.25, "p50": 2.0, "p95": 3.0, "p99": 3.5, "cpu": 0.5},
        },
        "sources": [
            {
                "name": "camera 0",
                "frames": 7,
                "anomalous": 2,
                "skipped": 1,
                "dropped": 3,
                "fps": 3.5,
                "last_score": 0.5,
                "last_at": 1.7e9,
                "alarm": True,
                "error": None,
                "delivered": 0,
                "last_frame_age_s": None,
                "away": None,
                "reconnects": 0,
                "score_counts": [],
                "score_sum": 0.0,
                "alarms": 0,
            }
        ],
        "interrupted": True,
        "fps": 3.5,
        "outside_inference_ms": 3.75,
        "outside_inference_cpu_ms": 1.75,
    }


def test_the_table_has_a_row_for_every_image():
    table = ImageTable(Path("/data"))
    heat = np.zeros((2, 2), np.float32)
    image = np.zeros((2, 2, 3), np.uint8)
    for index, (name, anomalous) in enumerate([("/data/a/[bold]1.png", True), ("/elsewhere/2.png", False)]):
        detection = Detection(0.25 * (index + 1), heat, anomalous, 0.5, (), "x", Timings(0, 0, 0, 0, 0))
        table.add((Frame(index, name, 0.0, image, 0.0), detection))
    table.add(BadFrame(2, "/data/b.png", "the file is empty"))
    rows = text_of(lambda console: console.print(table.render())).splitlines()
    find = lambda name: next(row for row in rows if name in row)  # noqa: E731
    assert "0.2500" in find("a/[bold]1.png") and "anomalous" in find("a/[bold]1.png")
    assert "/data" not in find("a/[bold]1.png")
    assert "0.5000" in find("/elsewhere/2.png") and "normal" in find("/elsewhere/2.png")
    assert "skipped" in find("b.png") and "the file is empty" in find("b.png")
