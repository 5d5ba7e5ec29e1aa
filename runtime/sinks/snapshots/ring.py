"""A folder of snapshots that never takes more than its share of the disk: the oldest go first."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.sinks.files import sink_errors
from kanoclip.runtime.sinks.snapshots.reader import FILE, PARTIAL, RECORD, SUFFIXES
from kanoclip.runtime.system.files.lock import Lock, LockedError
from kanoclip.runtime.system.files.own import mark_folder
from kanoclip.runtime.system.paths import replace_file
from kanoclip.runtime.system.sizes import show_size

log = logging.getLogger(__name__)

_LOCK = ".kanoclip-snapshots.lock"
_OVERHEAD = 16 << 10
"""What the files take beyond their bytes, at most: the rest of their last blocks, and their entries in the folder."""
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class SnapshotRing:
    """Writes snapshots and deletes the oldest, within a number of bytes and a number of snapshots.

    What is in the folder already counts. What a killed writer left unfinished is removed. Files that are no snapshots
    are neither counted nor touched.

    Names are joined as text: a `Path` has Python keep each part of it in one table, which is built anew, 1 MB larger,
    once a stream has given it some thousand names.

    Args:
        folder: Made when missing. One ring at a time may write to it.
        max_bytes: Bytes of all files of all snapshots, at most.
        max_count: Snapshots at most.

    Raises:
        SinkError: The folder cannot be written, or another ring writes to it.
    """

    def __init__(self, folder: Path, max_bytes: int, max_count: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_count = max_count
        self._sizes: dict[str, int] = {}  # from the oldest to the newest
        with sink_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                self._lock = Lock(folder / _LOCK, leave=True)
            except LockedError:
                raise SinkError(
                    f"{folder}: another kanoclip-run keeps its snapshots there; give each a folder of its own"
                ) from None
        try:
            with sink_errors(folder):
                mark_folder(folder)
                self._take_stock()
                self._make_room(0, 0)
        except BaseException:
            self._lock.release()
            raise

    @property
    def size(self) -> int:
        """Bytes of all snapshots."""
        return sum(self._sizes.values())

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, name: str, files: Mapping[str, bytes]) -> None:
        """Writes a snapshot; on a full disk older ones make room for it.

        Args:
            name: As `snapshot_reader.NAME` has it; one that is taken gets another number at its end.
            files: The content for each of `snapshot_reader.SUFFIXES`.

        Raises:
            SinkError: It is larger than the ring, or cannot be written; nothing of it is left.
        """
        size = sum(map(len, files.values()))
        if size > self._max_bytes:
            raise SinkError(
                f"{self._folder}: one snapshot takes {show_size(size)}; all may take {show_size(self._max_bytes)}"
            )
        while name in self._sizes:
            stem, _, number = name.rpartition("_")
            name = f"{stem}_{int(number) + 1:08d}"
        with sink_errors(self._folder):
            self._make_room(size, 1)
        try:
            self._write(name, files)
        except SinkError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno not in _NO_ROOM:
                raise
            with sink_errors(self._folder):
                if not self._free(size + _OVERHEAD):
                    raise
            self._write(name, files)
        self._sizes[name] = size

    def close(self) -> None:
        """Lets others write to the folder."""
        self._lock.release()

    def _take_stock(self) -> None:
        """Counts what is there, and removes what is unfinished."""
        complete: set[str] = set()
        sizes: dict[str, int] = {}
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if PARTIAL.fullmatch(entry.name):
                    _unlink(entry.path)
                elif (match := FILE.fullmatch(entry.name)) is not None:
                    size = entry.stat(follow_symlinks=False).st_size
                    sizes[match[1]] = sizes.get(match[1], 0) + size
                    if match[2] == RECORD and size:
                        complete.add(match[1])
        for name in sorted(sizes):
            if name in complete:
                self._sizes[name] = sizes[name]
            else:
                self._delete(name)

    def _make_room(self, size: int, count: int) -> None:
        """Deletes the oldest until so much more keeps within the bounds."""
        total = self.size
        while self._sizes and (total + size > self._max_bytes or len(self._sizes) + count > self._max_count):
            total -= self._delete_oldest()

    def _free(self, needed: int) -> bool:
        """Deletes the oldest until the disk has so many bytes free.

        Others may be filling it: no more is deleted than would do twice, and nothing where all would not do.

        Returns:
            False where nothing was deleted.
        """
        if self.size + self._disk_free() < needed:
            return False
        freed = 0
        while self._sizes and freed < 2 * needed and (not freed or self._disk_free() < needed):
            freed += self._delete_oldest()
        return freed > 0

    def _disk_free(self) -> int:
        status = os.statvfs(self._folder)
        return status.f_bavail * status.f_frsize

    def _delete_oldest(self) -> int:
        name = next(iter(self._sizes))
        self._delete(name)
        return self._sizes.pop(name)

    def _delete(self, name: str) -> None:
        for suffix in SUFFIXES:
            _unlink(self._path(name, suffix))

    def _write(self, name: str, files: Mapping[str, bytes]) -> None:
        """Writes the files of one snapshot, its record last; all or nothing."""
        try:
            for suffix in reversed(SUFFIXES):
                path = self._path(name, suffix)
                with sink_errors(path):
                    replace_file(path, files[suffix], durable=True)
        except SinkError:
            with suppress(OSError):  # the first failure is the one to tell
                self._delete(name)
            raise

    def _path(self, name: str, suffix: str) -> str:
        return os.path.join(self._folder, name + suffix)  # noqa: PTH118


def _unlink(path: str) -> None:
    """Deletes a file, unless somebody else did."""
    with suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108
