"""What the machine says about itself: memory and temperatures."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SYS = Path("/sys/class")
PROC = Path("/proc")
MAX_SENSORS = 24
HIGHEST_C = 150.0
"""A sensor that is not connected says 255 degrees, or less than nothing."""


@dataclass(frozen=True, slots=True)
class Temperature:
    """One sensor's.

    Attributes:
        sensor: What the kernel calls it, such as `gpu-thermal` or `coretemp Package id 0`.
        celsius: Degrees.
    """

    sensor: str
    celsius: float


def temperatures(sys_class: Path = SYS) -> list[Temperature]:
    """Thermal zones (Jetson, ARM boards, PCs) and hardware monitors, the hottest first; empty where there are none."""
    found: dict[str, float] = {}
    for zone in sorted(sys_class.glob("thermal/thermal_zone*")):
        _add(found, _text(zone / "type") or zone.name, zone / "temp")
    for value in sorted(sys_class.glob("hwmon/hwmon*/temp*_input")):
        chip = _text(value.parent / "name") or value.parent.name
        label = _text(value.with_name(value.name.replace("_input", "_label")))
        _add(found, f"{chip} {label}".strip(), value)
    rows = [Temperature(sensor, celsius) for sensor, celsius in found.items()]
    return sorted(rows, key=lambda row: -row.celsius)[:MAX_SENSORS]


def resident_bytes(proc: Path = PROC) -> int | None:
    """Memory of this process that is in RAM; None where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        return int((proc / "self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None


def available_bytes(proc: Path = PROC) -> int | None:
    """Memory that new work could have without swapping; None where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        for line in (proc / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _add(found: dict[str, float], sensor: str, path: Path) -> None:
    """Keeps the hottest of those that share a name."""
    with suppress(ValueError):
        celsius = int(_text(path)) / 1000
        if 0 < celsius < HIGHEST_C:
            found[sensor] = max(celsius, found.get(sensor, celsius))


def _text(path: Path) -> str:
    """A small file's text; empty where it cannot be read, as with a sensor that is switched off."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
