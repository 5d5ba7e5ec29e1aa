"""Turning the operating system's refusals into one clear line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kanoclip.runtime.errors import SinkError


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
