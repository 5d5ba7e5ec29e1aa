"""An output that is what the command reads is refused before anything is opened, made or truncated."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from kanoclip.runtime.errors import SinkError


def _none() -> Iterable[Path]:
    return ()


@dataclass(frozen=True)
class Read:
    """What a command reads.

    Attributes:
        what: Names it in the message, such as `the source`.
        path: A file, or a folder.
        files: The files that are read where the path is a folder or stands for several. Called only where an output
            exists, and may therefore be one of them.
        closed: Nothing may be written anywhere below it, such as into a bundle.
    """

    what: str
    path: Path
    files: Callable[[], Iterable[Path]] = _none
    closed: bool = False


@dataclass(frozen=True)
class Written:
    """What a command writes.

    Attributes:
        flag: Names it in the message: the flag, or the line of the settings file.
        path: A file, or a folder.
        replaced: It gives way as a whole, with all that lies below it.
        filled: A folder that is filled with images, and read as a source no more.
    """

    flag: str
    path: Path
    replaced: bool = False
    filled: bool = False


def refuse_overwriting(written: Iterable[Written], read: Iterable[Read]) -> None:
    """Refuses outputs that would overwrite what is read, or each other, by whatever name: `..`, a symlink, a hard link.

    Args:
        written: The outputs, none of which is open yet.
        read: The inputs.

    Raises:
        SinkError: One of them would; the message names both.

    Examples:
        >>> Path("clip.mp4").touch()
        >>> refuse_overwriting([Written("--jsonl", Path("./clip.mp4"))], [Read("the source", Path("clip.mp4"))])
        Traceback (most recent call last):
        kanoclip.runtime.errors.SinkError: --jsonl clip.mp4 would overwrite the source clip.mp4: name another place
    """
    inputs, outputs = list(read), list(written)
    for place, output in enumerate(outputs):
        for one in inputs:
            if (hit := _hit(output, one)) is not None:
                raise SinkError(f"{output.flag} {output.path} would overwrite {one.what} {hit}: name another place")
            if output.filled and (hit := _held(output, one)) is not None:
                raise SinkError(
                    f"{output.flag} {output.path} holds images of {one.what}, such as {hit}, which would be left out "
                    "as outputs later: name another folder"
                )
        for other in outputs[:place]:
            if _resolved(output.path) == _resolved(other.path) or _same(output.path, other.path):
                raise SinkError(
                    f"{output.flag} {output.path} would overwrite what {other.flag} writes: give each its own place"
                )


def _hit(output: Written, one: Read) -> Path | None:
    """The file or folder that would be lost; None for none."""
    here, there = _resolved(output.path), _resolved(one.path)
    if here == there or _same(output.path, one.path):
        return one.path
    if (one.closed and _below(here, there)) or (output.replaced and _below(there, here)):
        return one.path
    try:
        own = os.stat(here)  # noqa: PTH116
    except (OSError, ValueError):  # what is not there yet is no source
        return None
    return None if stat.S_ISDIR(own.st_mode) else next((path for path in one.files() if _is(own, path)), None)


def _held(output: Written, one: Read) -> Path | None:
    """A file that is read and lies in the output's folder; None for none."""
    if not output.path.is_dir():
        return None
    here = _resolved(output.path)
    return next((path for path in one.files() if _below(_resolved(path), here)), None)


def _resolved(path: Path) -> str:
    """Without links and `..`, whether it is there or not; as it is where no file can have the name."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return os.fspath(path)


def _below(path: str, folder: str) -> bool:
    """Whether a resolved path lies in a resolved folder."""
    return path.startswith(os.path.join(folder, ""))  # noqa: PTH118


def _is(own: os.stat_result, path: Path) -> bool:
    try:
        return os.path.samestat(own, path.stat())
    except OSError:
        return False


def _same(first: Path, second: Path) -> bool:
    """Whether both are there and one file: what hard links and file systems without regard to case need."""
    try:
        return first.samefile(second)
    except (OSError, ValueError):
        return False
