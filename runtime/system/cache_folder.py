"""Where things are kept that can be made again: one folder per kind in the user's cache."""

from __future__ import annotations

import errno
import os
from pathlib import Path


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
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(given) if given else Path.home() / ".cache") / "kanoclip" / name
    except RuntimeError as error:  # a user without an entry in the system's list, as in some containers
        raise OSError(errno.ENOENT, "this user has no home", "~/.cache") from error
