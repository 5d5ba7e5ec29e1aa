"""Many numbers, sorted portion by portion: in memory, and beyond a limit on disk."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.errors import KanoclipError
from kanoclip.runtime.metrics.ranking import Floats

Array = npt.NDArray[Any]


class Spool:
    """Keeps arrays: in memory up to a limit, then in a file without a name, so that a killed process leaves nothing."""

    def __init__(self, memory_limit: int) -> None:
        """Starts empty; the file is made when it is first needed.

        Args:
            memory_limit: Bytes to keep in memory.
        """
        self._room = memory_limit
        self._file: FileIO | None = None
        self._end = 0

    @property
    def bytes_on_disk(self) -> int:
        """Size of the file."""
        return self._end

    def keep(self, array: Array) -> Column:
        """Stores a 1-D array.

        Raises:
            KanoclipError: The file cannot be made or written.
        """
        if array.nbytes <= self._room:
            self._room -= array.nbytes
            return Column(self, array.dtype, array, 0)
        start = self._end
        try:
            if self._file is None:
                # Unbuffered: what a full disk refuses is then known here, and not left over for `close` to fail on.
                self._file = tempfile.TemporaryFile(prefix="kanoclip-", buffering=0)  # noqa: SIM115 - `close` closes it
            self._file.seek(start)
            left = array.view(np.uint8).data
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise _failed("cannot take", error) from error
        self._end += array.nbytes
        return Column(self, array.dtype, None, start)

    def read(self, position: int, dtype: np.dtype[Any], count: int) -> Array:
        """Takes an array, or a part of one, from the file.

        Raises:
            KanoclipError: The file cannot be read, or ends early.
        """
        assert self._file is not None
        array = np.empty(count, dtype)
        left = array.view(np.uint8).data
        try:
            self._file.seek(position)
            while left:
                got = self._file.readinto(left)
                if not got:
                    raise OSError(errno.EIO, "the file ends early")
                left = left[got:]
        except OSError as error:
            raise _failed("does not give back", error) from error
        return array

    def close(self) -> None:
        """Removes the file."""
        if self._file is not None:
            self._file.close()


@dataclass(frozen=True)
class Column:
    """An array that a spool keeps.

    Attributes:
        spool: Who keeps it.
        dtype: Of its elements.
        array: The array itself, if it is in memory.
        position: Its first byte in the file, if it is not.
    """

    spool: Spool
    dtype: np.dtype[Any]
    array: Array | None
    position: int

    def read(self, start: int, stop: int) -> Array:
        """Elements `start` up to `stop`."""
        if self.array is not None:
            return self.array[start:stop]
        return self.spool.read(self.position + start * self.dtype.itemsize, self.dtype, stop - start)


class Run:
    """Rows sorted by their first column.

    Attributes:
        samples: Every `stride`-th value of that column, ascending, from the first one on. They stay in memory.
        length: Number of rows.
    """

    def __init__(self, spool: Spool, stride: int, *columns: Array) -> None:
        """Stores the rows.

        Args:
            spool: Who keeps them.
            stride: Rows from one sample to the next.
            columns: Of equal lengths; the first one ascending.

        Raises:
            KanoclipError: The disk cannot take them.
        """
        self._stride = stride
        self.samples: Floats = columns[0][::stride].copy()
        self.length = len(columns[0])
        self._columns = [spool.keep(column) for column in columns]

    def read(self, start: int, stop: int) -> list[Array]:
        """The columns of rows `start` up to `stop`."""
        return [column.read(start, stop) for column in self._columns]

    def search(self, value: float | np.floating[Any], side: Literal["left", "right"]) -> int:
        """What `np.searchsorted` gives for the first column, from the few rows between two samples."""
        sample = int(np.searchsorted(self.samples, value, side))
        start = max(sample - 1, 0) * self._stride
        stop = min(sample * self._stride, self.length)
        return start + int(np.searchsorted(self._columns[0].read(start, stop), value, side))


def cut_points(runs: Sequence[Run], stride: int, rows: int) -> list[np.floating[Any]]:
    """Values, descending, between any two of which (both excluded) lie few rows of all runs together.

    Args:
        runs: All of the same stride and dtype.
        stride: Theirs.
        rows: That should lie between two values at most. With R runs, no less than (R + 1) * stride can be held to.

    Returns:
        Ends with a value that no row is below.
    """
    # Between two neighbouring samples of all runs, no run has more than `stride` rows; so between the first and the
    # last of m + 1 samples in a row, there are at most (m + R) * stride.
    every = max(rows // stride - len(runs), 1)
    samples = np.sort(np.concatenate([run.samples for run in runs]))
    return list(np.unique(samples[::every])[::-1])


def _failed(what: str, error: OSError) -> KanoclipError:
    try:
        folder = tempfile.gettempdir()
    except OSError:
        # Python looks for a folder that takes a file, and found none; `error` says where it looked.
        folder = "no folder for temporary files"
    return KanoclipError(
        f"{folder} {what} the pixels that metrics put aside ({error.strerror}): "
        "free space there, or set TMPDIR to a folder on a larger disk"
    )
