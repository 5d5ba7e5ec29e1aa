"""Which versions of which packages are installed, and which programs of the system work."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path


def is_installed(module: str) -> bool:
    """Whether a module is there, without the time that importing it takes."""
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # a module without a spec, as an embedding program may have put there
        return True


def installed_versions(names: Sequence[str]) -> dict[str, str]:
    """Versions of the distributions that are installed, in the order of `names`; the others are left out."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def keep_onnxruntime_silent() -> None:
    """Has ONNX Runtime report nothing; called before it is imported.

    Its wheels for Linux (1.32) collect events about sessions, write them and an identifier below `~/.cache/Microsoft`,
    and send them to Microsoft. Processes that we start inherit this. Who has set the variable decides for himself.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def own_commit() -> str:
    """This checkout's commit, or `unknown` for an installed wheel."""
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


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
