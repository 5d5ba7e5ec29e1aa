"""Writes files either whole or not at all, and finds the user's folders for caches and settings."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path
from typing import Literal

UNFINISHED = ".*.part"
"""Names of files that `replace_file` left when it was killed; the number before the suffix is its process's."""


def replace_file(path: Path | str, content: bytes | memoryview, *, durable: bool = False) -> None:
    """Writes a file beside its place and renames it: readers see the old content or the new, and never half of it.

    It keeps the file's permissions. `UNFINISHED` files of processes that no longer run may be removed.

    Args:
        path: The file, in a folder that exists. Pass a string if ever new names are written: Python interns each part
            of a `Path`.
        content: All of it.
        durable: Have it on the disk before the rename, so that a power cut cannot leave an empty file.

    Raises:
        OSError: It cannot be written; nothing half-written is left.
    """
    folder, name = os.path.split(path)
    beside = os.path.join(folder, f".{name}.{os.getpid()}.part")  # noqa: PTH118
    try:
        _write(beside, content, durable)
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(path, beside)
        os.replace(beside, path)  # noqa: PTH105
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(beside)  # noqa: PTH108
        raise


def _write(path: str, content: bytes | memoryview, durable: bool) -> None:
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def cache_folder(name: str) -> Path:
    """Makes the folder of `cache_path`.

    Args:
        name: The folder's name, such as `onnxruntime-tensorrt`.

    Returns:
        The folder, which exists; whether it can be written is for its user to find out.

    Raises:
        OSError: It cannot be made; its `filename` is the folder.
    """
    folder = cache_path(name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def cache_path(name: str) -> Path:
    """Where `kanoclip/NAME` is in the user's cache, which is `XDG_CACHE_HOME` or else `~/.cache`; it may not exist.

    Raises:
        OSError: The user has neither.
    """
    return _user_folder("cache") / name


def config_path() -> Path:
    """Where `kanoclip` is in the user's settings: in `XDG_CONFIG_HOME` or else `~/.config`; it may not exist.

    Raises:
        OSError: The user has neither.
    """
    return _user_folder("config")


def _user_folder(kind: Literal["cache", "config"]) -> Path:
    from platformdirs import PlatformDirs  # here: it takes 10 to 20 ms of a start, and not every start looks for one

    folders = PlatformDirs("kanoclip", appauthor=False)
    try:
        folder = folders.user_cache_path if kind == "cache" else folders.user_config_path
    except RuntimeError:  # a user without an entry in the system's list, as in some containers
        folder = Path(f"~/.{kind}")
    if not folder.is_absolute():  # older releases return the `~` itself
        raise OSError(errno.ENOENT, "this user has no home", f"~/.{kind}")
    return folder
