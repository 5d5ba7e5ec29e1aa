"""Turning the operating system's refusals into one clear line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.system.files.lock import LockedError, OutputLock


@contextmanager
def sink_errors(path: Path | str) -> Iterator[None]:
    """Raises whatever the operating system refuses inside as a `SinkError` that names the file.

    Raises:
        SinkError: In place of an OSError (no permission, disk full, a file where a folder should be).
    """
    try:
        yield
    except OSError as error:
        raise SinkError(f"{path}: cannot be written ({error.strerror or error})") from error


def output_lock(path: Path) -> OutputLock:
    """Keeps other writers away from a file, by its name.

    Args:
        path: The file, whose folder is there.

    Raises:
        SinkError: Another writes it, in this process or in another one.
    """
    try:
        return OutputLock(path)
    except LockedError:
        raise SinkError(busy(path)) from None


def busy(path: Path) -> str:
    """What a second writer of a file is refused with."""
    return f"{path}: another process is writing it; give each a file of its own"
