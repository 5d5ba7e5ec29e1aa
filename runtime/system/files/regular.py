"""Reading a file that must be one: a device or a pipe would never end, or never begin."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

SMALL = 64 << 20
"""More than any file of settings, names or answers has."""


def open_regular(path: Path) -> BinaryIO:
    """Opens a file to be read.

    Raises:
        OSError: It cannot be read, or is no regular file; never waits for a pipe's writer.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a name that no file can have
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    try:
        kind = os.fstat(handle).st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(kind):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check_regular(*paths: Path | None) -> None:
    """Refuses what is no file, for libraries that open it by its name and would wait for a pipe's writer.

    Args:
        paths: The files; None for none.

    Raises:
        OSError: As `open_regular` has it, with the file's name.
    """
    for path in paths:
        if path is not None:
            with closing(open_regular(path)):
                pass


def no_password() -> str:
    """For keys that are encrypted: OpenSSL would otherwise ask at the terminal, and wait."""
    return ""


def read_regular(path: Path, limit: int) -> bytes | None:
    """A file's content.

    Args:
        path: The file.
        limit: Most bytes.

    Returns:
        None where it is larger.

    Raises:
        OSError: It cannot be read, or is no regular file; never waits for a pipe's writer.
    """
    with closing(open_regular(path)) as file:
        if os.fstat(file.fileno()).st_size > limit:  # nothing is taken of a file with holes of a terabyte
            return None
        content = file.read(limit + 1)
    return None if len(content) > limit else content


def read_small(path: Path, limit: int = SMALL) -> bytes:
    """A file's content, which must be small.

    Raises:
        OSError: As `open_regular` has it; or it is larger.
    """
    content = read_regular(path, limit)
    if content is None:
        raise OSError(errno.EFBIG, f"it is over {limit >> 20} MiB", str(path))
    return content


def read_start(path: Path, most: int) -> bytes:
    """The beginning of a file.

    Raises:
        OSError: As `open_regular` has it.
    """
    with closing(open_regular(path)) as file:
        return file.read(most)
