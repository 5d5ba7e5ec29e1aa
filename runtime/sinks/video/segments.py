"""The files of a recording without an end: their names, and how much of the disk they may take."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Segments:
    """How a live recording is split.

    Attributes:
        seconds: Length of one file, at least 1.
        max_bytes: Bytes of all files, at most; the oldest are deleted when a new one begins. None for no limit.
    """

    seconds: float = 600.0
    max_bytes: int | None = None


def stamped(path: Path, moment: float) -> Path:
    """A name beside `path` with a Unix time in it that no file has: `x.mp4` becomes `x-20231114T221320Z.mp4`."""
    stamp = f"{datetime.fromtimestamp(moment, timezone.utc):%Y%m%dT%H%M%SZ}"
    name, number = f"{path.stem}-{stamp}", 1
    while (found := path.with_name(f"{name}{path.suffix}")).exists():
        number += 1
        name = f"{path.stem}-{stamp}-{number}"
    return found


def keep_aside(path: Path) -> None:
    """Gives a file that is there the time of its last change as part of its name, so that it is not overwritten.

    Raises:
        OSError: It cannot be renamed.
    """
    if path.is_file() and path.stat().st_size:
        path.replace(stamped(path, path.stat().st_mtime))


def delete_oldest(path: Path, max_bytes: int) -> None:
    """Deletes the oldest of the files that `stamped` named until the others take at most so many bytes.

    Raises:
        OSError: The folder cannot be read, or a file cannot be deleted.
    """
    pattern = re.compile(rf"{re.escape(path.stem)}-([0-9]{{8}}T[0-9]{{6}}Z)(?:-([0-9]+))?{re.escape(path.suffix)}")
    found = ((pattern.fullmatch(file.name), file) for file in path.parent.iterdir())
    ours = sorted((match[1], int(match[2] or 1), file) for match, file in found if match is not None)
    sizes = [file.stat().st_size for _, _, file in ours]
    total = sum(sizes)
    for (_, _, file), size in zip(ours, sizes, strict=True):
        if total <= max_bytes:
            break
        file.unlink(missing_ok=True)
        total -= size
