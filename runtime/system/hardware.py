"""This machine's processor: what an engine may use of it, and what tells it from another one."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_NAMES = ("model name", "Hardware", "CPU part")  # x86, older ARM boards, other ARM
_FEATURES = ("flags", "Features")  # x86, ARM


LANES = 2
"""Pictures and video files are judged two frames at a time, each on half of the threads: on 2 cores half as many frames
a second again."""


def own_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def lanes_for(live: bool, threads: int | None) -> int:
    """How many frames to judge at a time.

    Args:
        live: A live view, which takes the newest frame with all threads, for a verdict as soon as can be.
        threads: Those of the engine; None for all cores.
    """
    return 1 if live or (threads or own_cores()) < LANES else LANES


def cpu_name() -> str:
    """Its model name, empty where the system does not tell. Virtual machines give one name to quite different ones."""
    fields = _cpuinfo()
    return next((fields[name] for name in _NAMES if name in fields), platform.processor())


def cpu_features() -> str:
    """A digest of its instruction sets: on them an engine's speed depends more than on the name."""
    return hashlib.sha256(" ".join([platform.machine(), *sorted(instruction_sets())]).encode()).hexdigest()[:16]


def instruction_sets() -> frozenset[str]:
    """What the system calls them, such as `avx512_vnni`; empty where it does not tell."""
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
