"""The work list on disk: which pictures, in which order, cut into slices.

A run writes it once, so that a million paths are in no process's memory, and so that a later run can tell whether it
would go on with the same list.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from kanoclip.runtime.ops.score.listing import Item


@dataclass(frozen=True)
class Slice:
    """Consecutive pictures, which one process scores and commits in one file.

    Attributes:
        number: Counted from 0.
        offset: Where its lines begin in the list, in bytes.
        count: Pictures in it.
    """

    number: int
    offset: int
    count: int


class WorkList:
    """A file with a line of JSON for each picture: its path, or path and class.

    Attributes:
        path: The file.
        pictures: How many.
        size: Pictures in a slice; the last one may have fewer.
        digest: sha256 of the file: that of paths, classes and their order.
    """

    def __init__(self, path: Path, pictures: int, size: int, digest: str, offsets: array[int]) -> None:
        self.path, self.pictures, self.size, self.digest = path, pictures, size, digest
        self._offsets = offsets

    @classmethod
    def write(
        cls, path: Path, items: Iterable[Item], size: int, told: Callable[[int], None] = lambda count: None
    ) -> WorkList:
        """Writes the list.

        Args:
            path: Where; replaced.
            items: The pictures, each taken once.
            size: Pictures in a slice, at least 1.
            told: Called with the number of pictures so far, once a slice.

        Raises:
            OSError: The file cannot be written.
        """
        digest, offsets = hashlib.sha256(), array("Q")
        offset = count = 0
        with path.open("wb") as file:
            for item in items:
                if count % size == 0:
                    offsets.append(offset)
                    told(count)
                # ASCII alone: names that are no UTF-8 come back as they were.
                value = item.path if item.class_name is None else [item.path, item.class_name]
                line = json.dumps(value).encode("ascii") + b"\n"
                file.write(line)
                digest.update(line)
                offset += len(line)
                count += 1
        return cls(path, count, size, digest.hexdigest(), offsets)

    @property
    def slices(self) -> int:
        """How many."""
        return len(self._offsets)

    def slice(self, number: int) -> Slice:
        """Where a slice is."""
        return Slice(number, self._offsets[number], min(self.size, self.pictures - number * self.size))


def read_slice(path: Path, where: Slice) -> list[Item]:
    """The pictures of a slice.

    Args:
        path: Of the list.
        where: As `WorkList.slice` gives it.
    """
    with path.open("rb") as file:
        file.seek(where.offset)
        values = [json.loads(file.readline()) for _ in range(where.count)]
    return [Item(value) if isinstance(value, str) else Item(*value) for value in values]
