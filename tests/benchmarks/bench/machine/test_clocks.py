from __future__ import annotations

import pytest

from kanoclip.benchmarks.bench.machine import clocks
from kanoclip.benchmarks.bench.machine.clocks import Clocks, about, read_clocks


def smi(folder, line):
    path = folder / "nvidia-smi"
    path.write_text(f'#!/bin/sh\ntest "$1" = --id=0000:65:00.0 && echo "{line}"\n')
    path.chmod(0o755)


def test_the_clocks_of_the_gpu_at_an_address(tmp_path, monkeypatch):
    monkeypatch.setattr(clocks, "DEVFREQ", tmp_path / "none")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    smi(tmp_path, "1410, 2619, 1980, 41")
    assert read_clocks("0000:65:00.0") == Clocks(1410, 2619, 1980, 41)
    assert read_clocks("0000:17:00.0") is None
    smi(tmp_path, "[N/A], 1, 2, 3")
    assert read_clocks("0000:65:00.0") is None
    smi(tmp_path, "1410, [N/A], 1980, 41")
    assert read_clocks("0000:65:00.0").memory_mhz is None


@pytest.mark.parametrize(("least", "locked"), [(1_020_000_000, True), (306_000_000, False)])
def test_a_jetsons_are_files_that_say_whether_they_are_locked(tmp_path, monkeypatch, least, locked):
    monkeypatch.setattr(clocks, "DEVFREQ", tmp_path)
    folder = tmp_path / "17000000.gpu"
    folder.mkdir()
    for name, value in (("cur_freq", 612_000_000), ("min_freq", least), ("max_freq", 1_020_000_000)):
        (folder / name).write_text(f"{value}\n")
    found = read_clocks("")
    assert found == Clocks(612, None, 1020, None, fixed=locked)
    assert about(found, found, found)["locked"] is locked


def test_an_idle_gpu_at_a_busy_ones_clock_is_locked():
    idle, low, busy = Clocks(1980, 1, 1980, 30), Clocks(210, 1, 1980, 30), Clocks(1975, 1, 1980, 60)
    assert about(idle, busy, busy)["locked"] is True and about(low, busy, busy)["locked"] is False
    assert about(low, None, busy) is None
