"""What the machine says about itself: memory and temperatures.

Asked for every second for months: its paths are made once, for a new `Path` has Python keep the parts of its name in a
table that grows by 1 MB when it has been given some thousand.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SYS = Path("/sys/class")
MEMORY, OWN_MEMORY = Path("/proc/meminfo"), Path("/proc/self/statm")
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


class Thermometers:
    """Thermal zones (Jetson, ARM boards, PCs) and hardware monitors, those that are there by now.

    Args:
        sys_class: Where the kernel tells of them.
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
        """What they say now, the hottest first, and of those that share a name the hottest alone."""
        found: dict[str, float] = {}
        for sensor, path in self._sensors:
            with suppress(ValueError):
                celsius = int(_text(path)) / 1000
                if 0 < celsius < HIGHEST_C:
                    found[sensor] = max(celsius, found.get(sensor, celsius))
        rows = [Temperature(sensor, celsius) for sensor, celsius in found.items()]
        return sorted(rows, key=lambda row: -row.celsius)[:MAX_SENSORS]


def resident_bytes(statm: Path = OWN_MEMORY) -> int | None:
    """Memory of this process that is in RAM; None where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None


def available_bytes(meminfo: Path = MEMORY) -> int | None:
    """Memory that new work could have without swapping; None where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _text(path: Path) -> str:
    """A small file's text; empty where it cannot be read, as with a sensor that is switched off."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
