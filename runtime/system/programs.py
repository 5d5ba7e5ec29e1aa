"""Programs of the system that are tried before they are relied on."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence


def succeeds(command: Sequence[str], timeout_s: float) -> bool:
    """Whether a command, which is given nothing and whose words nobody hears, ends in time and with exit code 0."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
