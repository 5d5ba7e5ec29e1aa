"""A live stream for long, with every local output on: as fast and as small at the end as at the beginning.

Beside the clean run two that leak on purpose, so that the short form is known to find a leak: 1 kB and 100 kB a frame.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kanoclip.benchmarks.soak import MB_AN_HOUR, judge, soak
from kanoclip.runtime.bundle import shipped_bundle

FPS = 20.0
SECONDS, SETTLE_S = 180.0, 60.0
# JSON lines are written for every frame; here each leaves something behind.
LEAK = """
import os
from kanoclip.runtime.sinks.jsonl import JsonLinesSink
kept, write = [], JsonLinesSink.write
def leaking(self, frame, detection):
    kept.append(os.urandom({size}))
    write(self, frame, detection)
JsonLinesSink.write = leaking
from kanoclip.runtime.cli.main import run_main
run_main()
"""


def leaking(size):
    return (sys.executable, "-c", LEAK.format(size=size))


def check_steady(found, fps):
    assert found["fps_change_interval"][1] > -0.05, found["fps_trend"]  # not surely slower by more than a twentieth
    assert found["fps"] > 0.95 * fps and found["dropped"] < 0.05 * found["frames"], found
    assert len(found["threads"]) == 1, found["threads"]
    # A request is open now and then; files that stay open would go on growing.
    assert found["files"][-1] - found["files"][0] <= 3, found["files"]
    assert found["shown"] > 2 * found["seconds"], "the page's client saw hardly a picture"
    assert not found["grows"], found["anonymous_mb"]


@pytest.mark.soak
@pytest.mark.timeout(500)
def test_three_minutes(toy_bundle):
    clean = (str(Path(sys.executable).with_name("kanoclip-run")),)
    programs = [clean, leaking(1_000), leaking(100_000)]
    with ThreadPoolExecutor(len(programs)) as pool:
        runs = list(pool.map(lambda program: soak(toy_bundle, SECONDS, FPS, program=program), programs))
    found, little, much = (judge(run, FPS, SETTLE_S) for run in runs)
    check_steady(found, FPS)
    for leak, size in ((little, 1_000), (much, 100_000)):
        assert leak["grows"], (size, leak["anonymous_mb"])
        asked = size * FPS * 3600 / 1e6
        assert 0.5 * asked < leak["anonymous_mb"]["per_hour"] < 2 * asked, (size, leak["anonymous_mb"])
        assert leak["anonymous_mb"]["low"] > MB_AN_HOUR


@pytest.mark.nightly
@pytest.mark.timeout(2400)
def test_half_an_hour():
    found = judge(soak(shipped_bundle(), 1800.0, 5.0), 5.0, 300.0)
    check_steady(found, 5.0)
    assert found["rss_mb"]["per_hour"] < MB_AN_HOUR, found["rss_mb"]
