"""Turning the operating system's refusals into one clear line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


def write_beside(path: Path | str, data: bytes, *, durable: bool = False) -> None:
    """Writes a file under a hidden name in the same folder and renames it: readers never see half of it.

    Args:
        path: Where to, in a folder that exists. Where names have no end a text: see `SnapshotRing`.
        data: All of it.
        durable: Have it on the disk before the rename, so that a power cut cannot leave an empty file.

    Raises:
        SinkError: It cannot be written; the hidden file is removed.
    """
    folder, name = os.path.split(path)
    partial = os.path.join(folder, f".{name}.{os.getpid()}.partial")  # noqa: PTH118
    with sink_errors(path):
        try:
            with open(partial, "wb") as file:  # noqa: PTH123
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(partial, path)  # noqa: PTH105
        except OSError:
            with suppress(OSError):
                os.unlink(partial)  # noqa: PTH108
            raise
