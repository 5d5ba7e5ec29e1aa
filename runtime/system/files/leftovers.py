"""What a killed process left beside its output is swept away by the next one, and nothing else is.

A folder that is being filled is locked by its process, which the system undoes when that ends. What has a process's
number in its name goes when no process has that number.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kanoclip.runtime.system.files.lock import Lock, take


@contextmanager
def staging(output: Path) -> Iterator[Path]:
    """Yields an empty folder `.NAME.xxxxxxxx` beside an output; it goes at the end, unless it was renamed.

    Folders of that kind that no process fills any more go first.

    Raises:
        OSError: It cannot be made.
    """
    # One at a time between making a folder and locking it: nobody takes it for a leftover.
    with Lock(output.with_name(f".{output.name}.lock"), wait=lambda: None):
        _sweep_unlocked(output)
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
        handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        take(handle, folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def sweep_numbered(output: Path) -> None:
    """Removes `NAME.PROCESS.part` beside an output where that process does not run any more.

    Args:
        output: The file or folder that is about to be written.
    """
    pattern = re.compile(rf"{re.escape(output.name)}\.([0-9]+)\.part")
    for path, match in _beside(output, pattern):
        if not _runs(int(match[1])):
            _remove(path)


def _sweep_unlocked(output: Path) -> None:
    """Removes staging folders that nobody has locked, and what an output that was replaced was moved into.

    A process that was killed in the very middle had moved the old one away, and the new one not yet into its place:
    then the old one goes back.
    """
    pattern = re.compile(rf"\.{re.escape(output.name)}\.(old\.)?[a-z0-9_]{{8}}")
    for path, match in _beside(output, pattern):
        if match[1] and not output.exists() and (path / output.name).exists():
            (path / output.name).rename(output)
        if path.is_symlink() or not path.is_dir():
            continue
        with suppress(OSError):
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if take(handle, path):
                    _remove(path)
            finally:
                os.close(handle)


def _beside(output: Path, pattern: re.Pattern[str]) -> list[tuple[Path, re.Match[str]]]:
    try:
        names = os.listdir(output.parent)  # noqa: PTH208 - names are all that is needed
    except OSError:
        return []
    return [(output.with_name(name), match) for name in names if (match := pattern.fullmatch(name)) is not None]


def _runs(process: int) -> bool:
    """Whether a process of this machine has a number."""
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return process > 0


def _remove(path: Path) -> None:
    """Removes a file or a folder, if that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
