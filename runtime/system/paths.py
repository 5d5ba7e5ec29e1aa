"""Files that are either whole or as they were before."""

from __future__ import annotations

import contextlib
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
