from __future__ import annotations

import os
import time

import pytest

from kanoclip.benchmarks.bench.machine import energy
from kanoclip.benchmarks.bench.machine.energy import Rapl, Sampled, find_meter, smi_watts, tegrastats_watts


@pytest.fixture
def counters(tmp_path, monkeypatch):
    """Two packages, one with a part of its own that is in its sum already."""
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "max_energy_range_uj").write_text("1000000\n")
        (tmp_path / name / "energy_uj").write_text("400000\n")
    return tmp_path


def test_rapl_adds_packages_and_wraps_around(counters):
    meter, reason = find_meter("cpu")
    assert isinstance(meter, Rapl) and reason == ""
    meter.start()
    (counters / "intel-rapl:0" / "energy_uj").write_text("900000\n")
    (counters / "intel-rapl:1" / "energy_uj").write_text("100000\n")
    (counters / "intel-rapl:0:0" / "energy_uj").write_text("999999\n")
    assert meter.stop() == pytest.approx(0.5 + 0.7)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_counters_that_only_root_reads_are_no_meter(counters):
    (counters / "intel-rapl:0" / "energy_uj").chmod(0)
    meter, reason = find_meter("cpu")
    assert meter is None and "run as root" in reason


def test_damaged_counters_are_no_meter(counters):
    (counters / "intel-rapl:0" / "energy_uj").write_text("?")
    assert find_meter("cpu")[0] is None


def test_a_machine_without_any_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_meter("cpu") == (None, "this machine has no RAPL counters")
    assert find_meter("cuda:0")[0] is None


def program(folder, name, line):
    path = folder / name
    path.write_text(f"#!/bin/sh\nwhile :; do echo '{line}'; /bin/sleep 0.05; done\n")
    path.chmod(0o755)


def test_programs_that_print_watts(tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    program(tmp_path, "nvidia-smi", "[N/A]")
    assert find_meter("cuda:0") == (None, "nvidia-smi tells no power of this GPU")
    program(tmp_path, "nvidia-smi", "123.50")
    meter, _ = find_meter("cuda:0")
    assert isinstance(meter, Sampled) and meter.name == "nvidia-smi, the GPU alone"
    started = time.perf_counter()
    meter.start()
    time.sleep(0.4)
    joules = meter.stop()
    assert 0.4 * 123.5 <= joules <= 123.5 * (time.perf_counter() - started)
    program(tmp_path, "tegrastats", "RAM 3011/7620MB CPU [2%@729] VDD_IN 4590mW/4590mW VDD_CPU_GPU_CV 520mW/520mW")
    assert find_meter("cpu")[0].name == "tegrastats, the whole board"


def test_lines():
    assert smi_watts(" 61.2\n") == 61.2 and smi_watts("[N/A]") is None
    assert tegrastats_watts("VDD_IN 4590mW/4600mW VDD_SOC 1mW/1mW") == 4.59
    assert tegrastats_watts("POM_5V_IN 2532/2532 POM_5V_GPU 40/40") == 2.532
    assert tegrastats_watts("RAM 3011/7620MB") is None
