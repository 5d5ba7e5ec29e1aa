"""A GPU's clocks before and after: figures of two runs can be compared where they are the same, or locked."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEVFREQ = Path("/sys/class/devfreq")
"""Where a Jetson shows them, in Hz."""
_FIELDS = ("clocks.sm", "clocks.mem", "clocks.max.sm", "temperature.gpu")
_SAME = 0.01
"""Share by which two clocks may differ and are the same."""


@dataclass(frozen=True)
class Clocks:
    """A GPU's state at one moment.

    Attributes:
        sm_mhz: Of its multiprocessors.
        memory_mhz: Of its memory; None where the driver has no figure.
        most_mhz: The highest of its multiprocessors.
        celsius: Its temperature; None where the driver has no figure.
        fixed: Whether the clock may not leave its place; None where that cannot be asked.
    """

    sm_mhz: float
    memory_mhz: float | None
    most_mhz: float
    celsius: float | None
    fixed: bool | None = None


def read_clocks(pci: str) -> Clocks | None:
    """Reads them; None where nothing tells.

    Args:
        pci: The GPU's address; a Jetson has one GPU, whose clocks are files.
    """
    for folder in sorted([*DEVFREQ.glob("*gpu*"), *DEVFREQ.glob("*.ga10b")]):
        with suppress(OSError, ValueError):
            now, least, most = (int((folder / name).read_text()) / 1e6 for name in ("cur_freq", "min_freq", "max_freq"))
            return Clocks(now, None, most, None, fixed=least == most)
    command = ["nvidia-smi", f"--id={pci}", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        sm, memory, most, celsius = (_number(word) for word in done.stdout.splitlines()[0].split(","))
        if sm is not None and most is not None:
            return Clocks(sm, memory, most, celsius)
    return None


def about(before: Clocks | None, busy: Clocks | None, after: Clocks | None) -> dict[str, Any] | None:
    """What a report says of a GPU's clocks.

    Args:
        before: Idle, before anything ran.
        busy: Right after runs without a pause.
        after: At the end.

    Returns:
        JSON values: MHz and degrees of the three moments, and `locked`; None where nothing tells. nvidia-smi does not
        say whether clocks are locked: they are where an idle GPU's is that of a busy one.
    """
    if before is None or busy is None or after is None:
        return None
    locked = before.fixed
    if locked is None:
        locked = abs(before.sm_mhz - busy.sm_mhz) <= _SAME * busy.sm_mhz
    return {"before": vars(before), "busy": vars(busy), "after": vars(after), "locked": locked}


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None  # [N/A]
