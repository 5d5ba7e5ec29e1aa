"""What commands wrote is not read as a source by the next one.

A folder that a command fills with images gets a file `.kanoclip-output`. So does the folder of a single image, such as
a plot; there the file lists names. Whoever reads a folder, a pattern or a watched folder leaves out what such files
list. A folder that the user names itself is read in spite of its own mark. Deleting the mark undoes it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from kanoclip.runtime.system.files.regular import read_start

MARK = ".kanoclip-output"
_ALL = "*"
_HEAD = (
    f"# Written by kanoclip, and not read as a source ({_ALL}: this whole folder). Delete this file to have it read.\n"
)
_LIMIT = 1 << 20
_DERIVED = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{3}Z_[0-9A-Za-z-]{1,40}_[0-9]{8,15}\.(annotated\.jpg|map\.png)")
"""A snapshot's files that are no photographs. Its image alone is one, and may be learned from."""


@dataclass(frozen=True)
class Own:
    """What in one folder was written by a command.

    Attributes:
        everything: The whole folder, with all below it.
        names: Names of files.
    """

    everything: bool = False
    names: frozenset[str] = frozenset()

    def has(self, name: str) -> bool:
        """Whether a file of the folder is one."""
        return self.everything or name in self.names or _DERIVED.fullmatch(name) is not None


def own_in(folder: Path | str, *, named: bool = False) -> Own:
    """What in a folder was written by a command.

    Args:
        folder: The folder itself, not those below.
        named: The user named it as the source: then no mark covers it as a whole.
    """
    try:
        lines = read_start(Path(folder, MARK), _LIMIT).decode(errors="replace").splitlines()
    except OSError:
        return Own()
    return Own(_ALL in lines and not named, frozenset(name for line in lines if (name := _name(line)) is not None))


def mark_folder(folder: Path) -> None:
    """Marks a folder that a command fills.

    Raises:
        OSError: It cannot be written.
    """
    _add(folder, _ALL)


def mark_file(path: Path) -> None:
    """Marks one file, such as a plot, among others that are no outputs.

    Raises:
        OSError: Its folder cannot be written.
    """
    _add(path.parent, json.dumps(path.name))


def _add(folder: Path, line: str) -> None:
    path = folder / MARK
    try:
        lines = read_start(path, _LIMIT).decode(errors="replace").splitlines()
    except FileNotFoundError:
        lines = []
    if line in lines:
        return
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n" if lines else f"{_HEAD}{line}\n")


def _name(line: str) -> str | None:
    if not line.startswith('"'):
        return None
    try:
        return str(json.loads(line))
    except ValueError:
        return None
