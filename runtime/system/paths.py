"""Files that are either whole or as they were before, and the folders where things lie that can be made again."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Writes a file beside its place and renames it: whatever goes wrong, the old content stays whole.

    It keeps the permissions that the file had.

    Args:
        path: Where to, in a folder that exists.
        content: All of it.

    Raises:
        OSError: It cannot be written; nothing half-written is left.
    """
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        beside.write_bytes(content)
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(path, beside)
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


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
