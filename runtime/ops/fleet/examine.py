"""Looks at a bundle that was pulled, and at the program that is to use it, in processes of their own."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from kanoclip.runtime.errors import FleetError, one_line

DOCTOR_TIMEOUT_S = 45 * 60.0
"""A doctor may build an engine first."""
START_TIMEOUT_S = 35 * 60.0
"""A service that is started may do so as well (TimeoutStartSec=30min)."""
_DOCTOR = "from kanoclip.runtime.cli.main import doctor_main; doctor_main()"


def run_doctor(bundle: Path, options: Sequence[str], timeout_s: float = DOCTOR_TIMEOUT_S) -> None:
    """Runs kanoclip-doctor on a bundle; an engine that crashes takes nothing else along.

    Args:
        bundle: Its folder.
        options: Further arguments, such as `--backend`.
        timeout_s: When to give up.

    Raises:
        FleetError: The doctor says no, dies, or does not answer.
    """
    command = [sys.executable, "-c", _DOCTOR, str(bundle.absolute()), "--json", *options]
    try:
        # From a folder where no module lies that could be taken for another.
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout_s, cwd="/")
    except subprocess.TimeoutExpired:
        raise FleetError(f"no answer for {timeout_s / 60:.0f} minutes") from None
    except OSError as error:
        raise FleetError(f"it could not be started ({error.strerror})") from error
    if done.returncode == 0:
        return
    if done.returncode < 0:
        raise FleetError(f"it died of signal {-done.returncode}")
    try:
        found = json.loads(done.stdout)["comparison"]
        message = (
            f"{found['backend']} is off by {found['map_drift']} in maps (bound {found['map_bound']:g}) and by "
            f"{found['score_drift']} in scores (bound {found['score_bound']:g})"
        )
    except (ValueError, KeyError, TypeError):
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        message = lines[-1].removeprefix("error: ") if lines else f"exit code {done.returncode}"
    raise FleetError(one_line(message))


def run_command(command: str, timeout_s: float = START_TIMEOUT_S) -> None:
    """Runs a command line, without a shell.

    Raises:
        FleetError: It fails, cannot be started, or does not end.
    """
    words = shlex.split(command)
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno(), timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise FleetError(f"`{command}` has not ended for {timeout_s / 60:.0f} minutes") from None
    except OSError as error:
        raise FleetError(f"`{command}` cannot be started ({error.strerror})") from error
    if done.returncode:
        raise FleetError(f"`{command}` ended with {done.returncode}")
