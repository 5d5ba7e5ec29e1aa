"""The work list on disk: which images, in which order, cut into slices.

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

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.schema import MODEL_FILE
from kanoclip.runtime.ops.score.listing import Item
from kanoclip.runtime.system.hardware import available_bytes, own_cores


@dataclass(frozen=True)
class Slice:
    """Consecutive images, which one process scores and commits in one file.

    Attributes:
        number: Counted from 0.
        offset: Where its lines begin in the list, in bytes.
        count: Images in it.
    """

    number: int
    offset: int
    count: int


class WorkList:
    """A file with a line of JSON for each image: its path, or path and class.

    Attributes:
        path: The file.
        count: How many.
        size: Images in a slice; the last one may have fewer.
        digest: sha256 of the file: that of paths, classes and their order.
    """

    def __init__(self, path: Path, images: int, size: int, digest: str, offsets: array[int]) -> None:
        self.path, self.count, self.size, self.digest = path, images, size, digest
        self._offsets = offsets

    @classmethod
    def write(
        cls, path: Path, items: Iterable[Item], size: int, on_progress: Callable[[int], None] = lambda count: None
    ) -> WorkList:
        """Writes the list.

        Args:
            path: Where; replaced.
            items: The images, each taken once.
            size: Images in a slice, at least 1.
            on_progress: Called with the number of images so far, once a slice.

        Raises:
            OSError: The file cannot be written.
        """
        digest, offsets = hashlib.sha256(), array("Q")
        offset = count = 0
        with path.open("wb") as file:
            for item in items:
                if count % size == 0:
                    offsets.append(offset)
                    on_progress(count)
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
        return Slice(number, self._offsets[number], min(self.size, self.count - number * self.size))


def read_slice(path: Path, where: Slice) -> list[Item]:
    """The images of a slice.

    Args:
        path: Of the list.
        where: As `WorkList.slice` gives it.
    """
    with path.open("rb") as file:
        file.seek(where.offset)
        values = [json.loads(file.readline()) for _ in range(where.count)]
    return [Item(value) if isinstance(value, str) else Item(*value) for value in values]


WEIGHTS_TIMES = 6
"""Memory of an engine in sizes of its graph's files, beside `BASE`: ViT-L/14@336 took 4.0 GB at the most in OpenVINO
and 1.9 GB in ONNX Runtime (docs/measurements.md), and its weights are 0.6 GB where stored in half precision."""
BASE = 250 << 20
SHARE = 0.8
"""Of the memory that is free, what engines may take."""
REMOTE_READERS = 8
"""A network's answer takes its time, and little of a core's."""


def default_processes(bundle: Bundle, threads: int, gpu: bool) -> int:
    """One for each core that its threads leave, as memory allows; on a GPU one."""
    if gpu:
        return 1
    files = bundle.manifest.files
    weights = sum(info.size for name, info in files.items() if name.startswith(MODEL_FILE))
    free = available_bytes()
    room = own_cores() if free is None else int(SHARE * free / (BASE + WEIGHTS_TIMES * weights))
    return max(1, min(own_cores() // threads, room))


def default_readers(remote: bool, feeds: bool) -> int:
    """One for local files, whose decoding takes the core that the engine wants; more from afar, or to feed others.

    Args:
        remote: The images come over a network.
        feeds: The engine is no core of this machine, but its GPU or a server.
    """
    if remote:
        return REMOTE_READERS
    return own_cores() if feeds else 1
