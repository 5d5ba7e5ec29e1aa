"""Energy a frame, where the platform tells: RAPL counters, NVML's counter, or a Jetson's tegrastats."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from kanoclip.benchmarks.bench.journal import Journal
from kanoclip.benchmarks.bench.runners.runners import FrameRuns, Runner
from kanoclip.benchmarks.bench.turns import Tick
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.engines.base import gpu_index
from kanoclip.runtime.engines.tensorrt.open_device import open_device
from kanoclip.runtime.errors import KanoclipError, one_line

POWERCAP = Path("/sys/class/powercap")
BLOCK_S = 3.0
"""One runner alone for so long, so that a meter that looks ten times a second sees enough."""
_TEGRASTATS = ("tegrastats", "--interval", "100")
_RAIL = re.compile(r"\b([A-Z]\w+) (\d+)(?:mW)?/\d+")
"""A rail: its name, then milliwatts now and on average."""
_BOARDS = (
    ("VDD_IN",),  # Orin Nano and NX
    ("VIN",),  # Thor
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),  # AGX Orin has no rail of all
    ("POM_5V_IN",),  # Nano, TX2
)
"""The rails that make the whole board's, on each kind of board."""


class Meter(Protocol):
    """Counts joules.

    Attributes:
        name: What is measured, in words.
    """

    name: str

    def start(self) -> None:
        """Begins."""
        ...

    def stop(self) -> float | None:
        """Joules since `start`; None when the meter said nothing."""
        ...


class Rapl:
    """The processor's own counters, packages added up; they wrap around."""

    name = "RAPL, processor packages"

    def __init__(self, packages: Sequence[Path]) -> None:
        """Reads the counters once.

        Raises:
            OSError: They cannot be read: on most systems only root may.
        """
        self._packages = list(packages)
        self._ranges = [int((one / "max_energy_range_uj").read_text()) for one in packages]
        self._before = self._read()

    def start(self) -> None:
        """Reads the counters."""
        self._before = self._read()

    def stop(self) -> float | None:
        """Reads them again."""
        pairs = zip(self._read(), self._before, self._ranges, strict=True)
        return sum((now - before) % wrap for now, before, wrap in pairs) / 1e6

    def _read(self) -> list[int]:
        return [int((one / "energy_uj").read_text()) for one in self._packages]


class Sampled:
    """A program that prints watts again and again; its readings are averaged over the time."""

    def __init__(self, name: str, command: Sequence[str], watts: Callable[[str], float | None]) -> None:
        self.name, self._command, self._watts = name, command, watts
        self._readings: list[float] = []

    def start(self) -> None:
        """Starts the program.

        Raises:
            OSError: It is not there.
        """
        self._readings = []
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._started = time.perf_counter()

    def stop(self) -> float | None:
        """Ends it."""
        elapsed = time.perf_counter() - self._started
        self._process.terminate()
        self._process.wait()
        self._reader.join()
        return float(np.mean(self._readings)) * elapsed if self._readings else None

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if (found := self._watts(line)) is not None:
                    self._readings.append(found)


class Nvml:
    """The GPU's own counter of millijoules since the driver was loaded, which Volta and newer have.

    Args:
        pci: The GPU's address.

    Raises:
        EnergyError: nvidia-ml-py, the driver or the counter is missing.
    """

    name = "NVML's counter, the GPU alone"

    def __init__(self, pci: str) -> None:
        try:
            import pynvml
        except ImportError:
            raise EnergyError("no nvidia-ml-py: pip install nvidia-ml-py") from None
        self._nvml = pynvml
        try:
            pynvml.nvmlInit()
            self._gpu = pynvml.nvmlDeviceGetHandleByPciBusId(pci.encode())
            self._before = self._read()
        except pynvml.NVMLError as error:
            raise EnergyError(f"NVML tells no energy of this GPU ({one_line(error)})") from error

    def start(self) -> None:
        """Reads the counter."""
        self._before = self._read()

    def stop(self) -> float | None:
        """Reads it again."""
        return (self._read() - self._before) / 1e3

    def _read(self) -> int:
        return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._gpu))


class EnergyError(KanoclipError):
    """A meter that cannot be used here."""


def tegrastats_watts(line: str) -> float | None:
    """The whole board's, of a line of tegrastats."""
    rails = {name: int(milliwatts) for name, milliwatts in _RAIL.findall(line)}
    for board in _BOARDS:
        if all(name in rails for name in board):
            return sum(rails[name] for name in board) / 1e3
    return None


def find_meter(device: str) -> tuple[Meter | None, str]:
    """What tells the energy of a device.

    Args:
        device: `cpu` or `cuda[:N]`.

    Returns:
        The meter, or None and why there is none.
    """
    tegrastats = Sampled("tegrastats, the whole board", _TEGRASTATS, tegrastats_watts)
    if _tells(tegrastats):
        return tegrastats, ""
    if device != "cpu":
        try:
            gpu = open_device(gpu_index(device))
            gpu.close()
            return Nvml(gpu.info.pci), ""
        except KanoclipError as error:
            return None, str(error)
    packages = [one for one in sorted(POWERCAP.glob("*-rapl:*")) if one.name.count(":") == 1]
    if not packages:
        return None, "this machine has no RAPL counters"
    try:
        return Rapl(packages), ""
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return None, f"the RAPL counters cannot be read ({reason}): run as root, or make energy_uj readable"


def _tells(meter: Sampled) -> bool:
    try:
        meter.start()
    except OSError:
        return False
    time.sleep(0.5)
    return meter.stop() is not None


def measure_energy(
    bundle: Bundle,
    runners: Sequence[Runner],
    batch: int,
    repeat: int,
    journal: Journal,
    tick: Tick,
    find: Callable[[str], tuple[Meter | None, str]] = find_meter,
) -> dict[str, dict[str, float | str | None]]:
    """Joules a frame, one runner alone for a while, in turns; whatever else draws power on that rail is in it.

    Args:
        bundle: What runs.
        runners: By what.
        batch: Frames that are scored together.
        repeat: Blocks of each.
        journal: Keeps each block.
        tick: Called after each block.
        find: Finds the meter of a device.

    Returns:
        Of each runner: `joules_per_frame`, the median or None; `meter`, or why there is none.
    """
    runs = FrameRuns.of(bundle, batch)
    meters = {device: find(device) for device in {runner.device for runner in runners}}

    def block(runner: Runner, meter: Meter) -> float | None:
        count, until = 0, time.perf_counter() + BLOCK_S
        meter.start()
        while time.perf_counter() < until or count == 0:
            runs.run(runner.backend)
            count += 1
        joules = meter.stop()
        return None if joules is None else joules / (count * batch)

    found: dict[str, list[float]] = {runner.name: [] for runner in runners}
    for number in range(repeat):
        for runner in runners:
            meter, _ = meters[runner.device]
            if meter is not None:
                reported = journal.once(f"energy/{number}/{runner.name}", lambda: block(runner, meter))  # noqa: B023
                if reported is not None:
                    found[runner.name].append(reported)
            tick("energy")
    by_runner: dict[str, dict[str, float | str | None]] = {}
    for runner in runners:
        meter, reason = meters[runner.device]
        by_runner[runner.name] = {
            "joules_per_frame": float(np.median(found[runner.name])) if found[runner.name] else None,
            "meter": meter.name if meter is not None else reason,
        }
    return by_runner
