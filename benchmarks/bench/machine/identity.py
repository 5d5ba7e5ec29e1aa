"""Everything about this machine that a figure depends on, and what tells two machines apart."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from kanoclip.benchmarks.studies.results import environment
from kanoclip.runtime.engines.doctor import examine_machine
from kanoclip.runtime.system.hardware import cpu_features

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM", "KMP_AFFINITY")
SAME = ("machine", "cpu", "cpu_features", "cores", "gpus")
"""What must be equal for two runs to be compared."""


def whole_environment() -> dict[str, Any]:
    """The machine, its settings and the versions of what runs on it."""
    found = asdict(examine_machine())
    packages = {**found.pop("packages")}
    return {
        **environment(),
        **packages,
        "system": found["system"],
        "gpus": list(found["gpus"]),
        "jetson": found["jetson"],
        "cpu_features": cpu_features(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "governor": _first_line(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "power_mode": _first_line(Path("/var/lib/nvpmodel/status")),
        "libc": " ".join(platform.libc_ver()),
        "threads_set": {name: os.environ[name] for name in _THREADS if name in os.environ},
    }


def other_machine(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """In what two machines differ, in words; empty when they are alike."""
    return [
        f"{name} {theirs.get(name)!r} there, {mine.get(name)!r} here"
        for name in SAME
        if mine.get(name) != theirs.get(name)
    ]


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").splitlines()[0].strip()
    except (OSError, IndexError, UnicodeDecodeError):
        return None
