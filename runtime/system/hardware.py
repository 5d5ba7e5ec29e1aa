"""This machine: its processor, what an engine may use of it, its memory and temperatures."""

from __future__ import annotations

import hashlib
import os
import platform
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_NAMES = ("model name", "Hardware", "CPU part")  # x86, older ARM boards, other ARM
_FEATURES = ("flags", "Features")  # x86, ARM


WORKERS = 2
"""Images and video files are scored two frames at a time, each on half of the threads: speed-up 1.5x on 2 cores."""


def own_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers_for(live: bool, threads: int | None) -> int:
    """How many frames to score at a time.

    Args:
        live: A live view scores the newest frame with all threads, for the lowest latency.
        threads: The engine's threads; None for all cores.
    """
    return 1 if live or (threads or own_cores()) < WORKERS else WORKERS


def cpu_name() -> str:
    """The processor's model name, empty if unknown. Virtual machines give one name to quite different processors."""
    fields = _cpuinfo()
    return next((fields[name] for name in _NAMES if name in fields), platform.processor())


def cpu_features() -> str:
    """A digest of the instruction sets: an engine's speed depends on them more than on the name."""
    return hashlib.sha256(" ".join([platform.machine(), *sorted(instruction_sets())]).encode()).hexdigest()[:16]


def instruction_sets() -> frozenset[str]:
    """The instruction sets' names, such as `avx512_vnni`; empty if unknown."""
    fields = _cpuinfo()
    return frozenset(word for name in _FEATURES for word in fields.get(name, "").split())


def _cpuinfo() -> dict[str, str]:
    """The fields of the first core; empty where there is no such file."""
    fields: dict[str, str] = {}
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return fields
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields


SYS = Path("/sys/class")
MAX_SENSORS = 24
HIGHEST_C = 150.0
"""A sensor that is not connected reports 255 degrees, or a negative number."""


@dataclass(frozen=True, slots=True)
class Temperature:
    """One sensor's.

    Attributes:
        sensor: What the kernel calls it, such as `gpu-thermal` or `coretemp Package id 0`.
        celsius: Degrees.
    """

    sensor: str
    celsius: float


class Thermometers:
    """Thermal zones (Jetson, ARM boards, PCs) and hardware monitors that exist now.

    psutil leaves the thermal zones out if there is any hardware monitor, but a Jetson's GPU has only a zone.

    Args:
        sys_class: Where the kernel lists them.
    """

    def __init__(self, sys_class: Path = SYS) -> None:
        self._sensors: list[tuple[str, Path]] = []
        for zone in sorted(sys_class.glob("thermal/thermal_zone*")):
            self._sensors.append((_text(zone / "type") or zone.name, zone / "temp"))
        for value in sorted(sys_class.glob("hwmon/hwmon*/temp*_input")):
            chip = _text(value.parent / "name") or value.parent.name
            label = _text(value.with_name(value.name.replace("_input", "_label")))
            self._sensors.append((f"{chip} {label}".strip(), value))

    def read(self) -> list[Temperature]:
        """The present readings, the hottest first; of sensors that share a name, only the hottest."""
        found: dict[str, float] = {}
        for sensor, path in self._sensors:
            with suppress(ValueError):
                celsius = int(_text(path)) / 1000
                if 0 < celsius < HIGHEST_C:
                    found[sensor] = max(celsius, found.get(sensor, celsius))
        rows = [Temperature(sensor, celsius) for sensor, celsius in found.items()]
        return sorted(rows, key=lambda row: -row.celsius)[:MAX_SENSORS]


# psutil is imported where memory is asked for, at most once a second: other starts are 10 to 30 ms quicker without.


def resident_bytes() -> int | None:
    """Memory of this process that is in RAM; None where the system does not say."""
    import psutil

    with suppress(OSError, psutil.Error):
        return int(psutil.Process().memory_info().rss)
    return None


def available_bytes() -> int | None:
    """Memory that new work could have without swapping; None where the system does not say."""
    import psutil

    with suppress(OSError, psutil.Error):
        return int(psutil.virtual_memory().available)
    return None


def _text(path: Path) -> str:
    """A small file's text; empty where it cannot be read, as with a sensor that is switched off."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
