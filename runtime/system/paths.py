"""Files that are either whole or as they were before, and the folders where things lie that can be made again."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path
from typing import Literal

UNFINISHED = ".*.part"
"""Names of what `replace_file` was writing when it was killed; the number before the end is its process's."""


def replace_file(path: Path | str, content: bytes | memoryview, *, durable: bool = False) -> None:
    """Writes a file beside its place and renames it: readers see the old content or the new, and never half of it.

    It keeps the permissions that the file had. Whoever finds `UNFINISHED` files of processes that are no more may
    remove them.

    Args:
        path: Where to, in a folder that exists. A text where names have no end: Python keeps each part of a `Path`.
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
        name: Of the folder, such as `onnxruntime-tensorrt`.

    Returns:
        The folder, which exists; whether it can be written is for its user to find out.

    Raises:
        OSError: It cannot be made; its `filename` says where it was tried.
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
    if not folder.is_absolute():  # older releases answer with the `~` itself
        raise OSError(errno.ENOENT, "this user has no home", f"~/.{kind}")
    return folder
