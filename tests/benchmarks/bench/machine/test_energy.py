from __future__ import annotations

import os
import sys
import time
from types import ModuleType, SimpleNamespace

import pytest

from kanoclip.benchmarks.bench.machine import energy
from kanoclip.benchmarks.bench.machine.energy import Nvml, Rapl, find_meter, tegrastats_watts
from kanoclip.runtime.errors import BackendError


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
    program(tmp_path, "tegrastats", "RAM 3011/7620MB CPU [2%@729] VDD_IN 4590mW/4590mW VDD_CPU_GPU_CV 520mW/520mW")
    meter, _ = find_meter("cpu")
    assert meter.name == "tegrastats, the whole board"
    started = time.perf_counter()
    meter.start()
    time.sleep(0.4)
    joules = meter.stop()
    assert 0.4 * 4.59 <= joules <= 4.59 * (time.perf_counter() - started)


class FakeNvml(ModuleType):
    """NVML's Python module: a counter of millijoules for each address."""

    class NVMLError(Exception):
        pass

    def __init__(self):
        super().__init__("pynvml")
        self.counters = {b"0000:65:00.0": 5_000_000, b"0000:17:00.0": 1}

    def nvmlInit(self):
        pass

    def nvmlDeviceGetHandleByPciBusId(self, pci):
        if pci not in self.counters:
            raise self.NVMLError("Not Found")
        return pci

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        return self.counters[handle]


def test_a_gpus_own_counter_by_its_address(tmp_path, monkeypatch):
    """CUDA counts the fastest GPU first, NVML by address: number 0 may be two of them."""
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    nvml, asked = FakeNvml(), []
    monkeypatch.setitem(sys.modules, "pynvml", nvml)

    def open_device(index):
        asked.append(index)
        return SimpleNamespace(info=SimpleNamespace(pci="0000:65:00.0"), close=lambda: None)

    monkeypatch.setattr(energy, "open_device", open_device)
    meter, reason = find_meter("cuda:1")
    assert isinstance(meter, Nvml) and reason == "" and asked == [1]
    meter.start()
    nvml.counters[b"0000:65:00.0"] += 2500
    assert meter.stop() == 2.5
    del nvml.counters[b"0000:65:00.0"]
    assert find_meter("cuda:1") == (None, "NVML tells no energy of this GPU (Not Found)")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert find_meter("cuda:1") == (None, "no nvidia-ml-py: pip install nvidia-ml-py")

    def no_gpu(index):
        raise BackendError("there is no GPU")

    monkeypatch.setattr(energy, "open_device", no_gpu)
    assert find_meter("cuda") == (None, "there is no GPU")


def test_lines():
    agx = "VDD_GPU_SOC 2404mW/2000mW VDD_CPU_CV 801mW/801mW VIN_SYS_5V0 4528mW/4528mW VDDQ_VDD2_1V8AO 604mW/604mW"
    assert tegrastats_watts(f"RAM 3011/62841MB (lfb 4x4MB) GR3D_FREQ 0% {agx}") == pytest.approx(7.733)
    assert tegrastats_watts("VDD_GPU 9001mW/9001mW VDD_CPU_SOC_MSS 7100mW/7000mW VIN 23050mW/23050mW") == 23.05
    assert tegrastats_watts("VDD_IN 4590mW/4600mW VDD_SOC 1mW/1mW") == 4.59
    assert tegrastats_watts("POM_5V_IN 2532/2532 POM_5V_GPU 40/40") == 2.532
    assert tegrastats_watts("RAM 3011/7620MB") is None
