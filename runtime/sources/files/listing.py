"""The images in a folder that others write to, and which of them are known already."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.sources.files.folders import IMAGE_SUFFIXES
from kanoclip.runtime.system.files.own import own_in

MOST_GONE = 1 << 16
"""So many files that have gone are still known: a share may be unmounted, and come back with all that was scored."""

_CHUNK = 4096
_Keys = npt.NDArray[np.uint64]


class Entry(NamedTuple):
    """A file as a look found it.

    Attributes:
        path: Where it is.
        changed_ns: When it was last written, in nanoseconds of Unix time.
        key: 64 bits that stand for path, size and time: one that is written again gets another.
    """

    path: str
    changed_ns: int
    key: int


def entry_of(path: str, status: os.stat_result) -> Entry:
    """A file by what `os.stat` says of it."""
    key = hash((path, status.st_mtime_ns, status.st_size)) & (2**64 - 1)
    return Entry(path, status.st_mtime_ns, key)


def list_images(folder: Path, without: Path | None = None) -> Iterator[Entry]:
    """Yields the images in a folder and all below it, but hidden ones and what commands wrote, in no order.

    What cannot be looked at, such as a file that was just deleted, is left out.

    Args:
        folder: The folder.
        without: A folder that is left out with all below it.

    Raises:
        OSError: The folder itself cannot be listed.
    """
    left_out = None if without is None else os.path.realpath(without)
    todo = [os.fspath(folder)]
    first = True
    while todo:
        parent = todo.pop()
        try:
            entries = os.scandir(parent)
        except OSError:
            if first:
                raise
            continue
        own = own_in(parent, named=first)
        first = False
        with entries:
            for entry in entries:
                if entry.name.startswith(".") or own.has(entry.name):
                    continue
                try:
                    if entry.is_dir(follow_symlinks=False):
                        if os.path.realpath(entry.path) != left_out:
                            todo.append(entry.path)
                    elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES and entry.is_file():  # noqa: PTH122
                        yield entry_of(entry.path, entry.stat())
                except OSError:
                    continue


class Known:
    """Which files were dealt with, in 16 bytes for each that is there.

    Attributes:
        count: Files that the last look found.
    """

    def __init__(self) -> None:
        self.count = 0
        self._here = np.empty(0, np.uint64)  # sorted
        self._gone = np.empty(0, np.uint64)  # oldest first
        self._new: set[int] = set()
        self._present = np.empty(0, np.uint64)

    def look(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Yields those that are not known; once all are taken, files that have gone are forgotten by and by."""
        self._take_in()
        known = np.union1d(self._here, self._gone)
        present = array("Q")
        rest = iter(entries)
        while chunk := list(islice(rest, _CHUNK)):
            keys = np.array([entry.key for entry in chunk], np.uint64)
            present.extend(keys.tolist())
            yield from (entry for entry, old in zip(chunk, _within(keys, known), strict=True) if not old)
        self._present = np.unique(np.frombuffer(present, np.uint64)) if present else np.empty(0, np.uint64)
        self.count = len(present)
        self._here, before = np.intersect1d(known, self._present, assume_unique=True), self._here
        old = self._gone[~_within(self._gone, self._present)]
        self._gone = np.concatenate([old, before[~_within(before, self._present)]])[-MOST_GONE:]

    def add(self, key: int) -> None:
        """A file was dealt with."""
        self._new.add(key)

    def add_present(self) -> None:
        """All that the last look found count as dealt with."""
        self._here = self._present

    def _take_in(self) -> None:
        if self._new:
            self._here = np.union1d(self._here, np.fromiter(self._new, np.uint64, len(self._new)))
            self._new.clear()


def _within(keys: _Keys, sorted_keys: _Keys) -> npt.NDArray[np.bool_]:
    """For each key whether it is among the others."""
    if not sorted_keys.size:
        return np.zeros(keys.shape, np.bool_)
    places = np.searchsorted(sorted_keys, keys)
    return np.asarray(sorted_keys[np.minimum(places, sorted_keys.size - 1)] == keys)
