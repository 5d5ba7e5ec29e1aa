from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from kanoclip.benchmarks.bench.machine import quiet
from kanoclip.benchmarks.bench.machine.quiet import Watch

STEADY = {"a": [10.0, 10.1, 9.9, 10.0] * 5}


@pytest.fixture
def clock(tmp_path, monkeypatch):
    """Writes /proc/stat, in seconds, and this process's own time."""
    stat = tmp_path / "stat"
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    ticks = os.sysconf("SC_CLK_TCK")
    own = [0.0]
    monkeypatch.setattr(quiet.os, "times", lambda: (own[0], 0.0, 0.0, 0.0, 0.0))

    def write(user, idle, steal, mine):
        fields = [int(value * ticks) for value in (user, 0, 0, idle, 0, 0, 0, steal, 0, 0)]
        stat.write_text("cpu  " + " ".join(map(str, fields)) + "\ncpu0 1 2 3\n")
        own[0] = mine

    return write


@pytest.mark.parametrize(
    ("user", "idle", "steal", "mine", "reason"),
    [
        (150, 50, 0, 148, None),
        (150, 50, 0, 100, "other programs used 25%"),
        (150, 46, 4, 150, "other virtual machines"),
        (100, 100, 0, 120, None),  # clocks of different grain: never less than nothing
    ],
)
def test_others_and_steal(clock, user, idle, steal, mine, reason):
    clock(1000, 5000, 7, 3)
    watch = Watch()
    clock(1000 + user, 5000 + idle, 7 + steal, 3 + mine)
    noise = watch.noise(STEADY)
    assert noise.quiet == (reason is None) and (reason is None or reason in noise.reasons[0])
    assert noise.others >= 0 and noise.steal == pytest.approx(steal / (user + idle + steal))


def test_without_clocks_the_load_average_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path / "none"))
    monkeypatch.setattr(quiet.os, "getloadavg", lambda: (99.0, 0, 0))
    noise = Watch().noise(STEADY)
    assert noise.others is None and noise.steal is None and "load average was 99.0" in noise.reasons[0]


def test_a_drift_and_a_spread_are_named(clock):
    clock(0, 0, 0, 0)
    watch = Watch()
    clock(0, 100, 0, 0)
    noise = watch.noise({"slow": [10.0] * 10 + [11.0] * 10, "wild": [5.0, 15.0] * 10, **STEADY})
    assert any("slow was 10% slower in the second half" in reason for reason in noise.reasons)
    assert any("wild are spread over 100%" in reason for reason in noise.reasons)
    assert not any(" a " in reason for reason in noise.reasons)
    assert watch.noise({"once": [3.0]}).halves == {"once": 0.0}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc/stat")
def test_a_neighbour_is_seen():
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.2)
        watch = Watch()
        time.sleep(1.0)
        assert watch.noise(STEADY).others > 0.3 / (os.cpu_count() or 1)
    finally:
        neighbour.kill()
        neighbour.wait()
