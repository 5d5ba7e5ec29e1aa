"""What a graph is given: frames, classes and a reference memory, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.bundle.manifest.schema import Manifest
from kanoclip.runtime.bundle.manifest.signature import FUSION_NUMBERS, MEMORY_INPUTS, ROWS
from kanoclip.runtime.errors import BackendError

Frames = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
NEVER_WINS = -1e4
"""Bias of a row that is none: no cosine makes up for it, and fp16 holds it."""


@dataclass(frozen=True, eq=False)
class MemoryTensors:
    """A reference memory as the graph takes it; the same object from run to run, by which an engine knows it again.

    Attributes:
        rows: Unit vectors, the references' descriptors less the centre, float32 [R, D].
        bias: What is added to each row's product, float32 [R].
        centre: What is subtracted from a descriptor, float32 [D].
        fusion: How distances become logits, float32 [FUSION_NUMBERS]; the first number is 0 for no memory at all.
    """

    rows: Floats
    bias: Floats
    centre: Floats
    fusion: Floats

    @property
    def decides_alone(self) -> bool:
        """Whether the zero-shot map has no weight beside the distances."""
        return bool(self.fusion[0] > 0.5 and self.fusion[3] == 0)

    @classmethod
    def empty(cls, channels: int) -> MemoryTensors:
        """No memory, for descriptors of so many channels: the graph's answers are the zero-shot ones, bit for bit."""
        return cls(
            np.zeros((1, channels), np.float32),
            np.full(1, NEVER_WINS, np.float32),
            np.zeros(channels, np.float32),
            np.zeros(FUSION_NUMBERS, np.float32),
        )

    def padded(self, rows: int) -> MemoryTensors:
        """The same with rows that never win, up to so many: for an engine whose shapes are fixed."""
        missing = rows - len(self.rows)
        return MemoryTensors(
            np.pad(self.rows, ((0, missing), (0, 0))),
            np.pad(self.bias, (0, missing), constant_values=NEVER_WINS),
            self.centre,
            self.fusion,
        )

    def inputs(self) -> dict[str, Floats]:
        """The arrays by the names of the graph's inputs."""
        return dict(zip(MEMORY_INPUTS, (self.rows, self.bias, self.centre, self.fusion), strict=True))


def by_distance(distances: Floats, memory: MemoryTensors) -> tuple[Floats, Floats]:
    """Maps and scores where the zero-shot map has no weight: sigmoid(gain * (d - offset) + shift).

    Args:
        distances: Smoothed, float32 [B, H, W]; written over.
        memory: One that `decides_alone`.

    Returns:
        Maps float32 [B, H, W] and scores float32 [B], both in [0, 1].
    """
    _, gain, offset, _, _, shift = memory.fusion[:6]
    distances *= -gain
    distances += gain * offset - shift
    with np.errstate(over="ignore"):  # exp of a large number is infinite, and its share 0, as it should be
        np.exp(distances, out=distances)
    distances += 1
    maps = np.reciprocal(distances, out=distances)
    return maps, maps.max((1, 2))


@cache
def _no_memory(channels: int) -> MemoryTensors:
    """One object for each number of channels, so that an engine copies it once."""
    return MemoryTensors.empty(channels)


@dataclass(frozen=True, eq=False)
class Inputs:
    """Everything that a graph is given for one batch.

    Attributes:
        frames: uint8 [B, H, W, 3].
        class_index: int64 [B], where several classes are baked.
        memory: Where the graph takes a reference memory.
    """

    frames: Frames
    class_index: Indices | None
    memory: MemoryTensors | None

    @classmethod
    def of(
        cls, manifest: Manifest, frames: Frames, class_index: Indices | None, memory: MemoryTensors | None = None
    ) -> Inputs:
        """Completes what a caller gives by an empty memory, where the graph takes one.

        Raises:
            BackendError: The graph takes no memory, and one is given.
        """
        if manifest.memory is None or manifest.descriptor is None:
            if memory is not None:
                raise BackendError(f"the bundle {manifest.name} takes no reference memory: export it again")
            return cls(frames, class_index, None)
        return cls(frames, class_index, memory or _no_memory(manifest.descriptor.channels))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by the inputs' names, in the manifest's order."""
        index = {} if self.class_index is None else {"class_index": self.class_index}
        return {"frame": self.frames, **index, **({} if self.memory is None else self.memory.inputs())}


def whole_batches(images: Sequence[Frames], classes: int, size: int) -> Iterator[tuple[Frames, Indices]]:
    """Images in full batches, each class used at least once: image i goes with class i modulo their number.

    Args:
        images: Each uint8 [H, W, 3]; repeated where they are too few.
        classes: How many the graph has.
        size: Of a batch.

    Yields:
        Frames [size, H, W, 3] and class indices [size].
    """
    total = -(-max(len(images), classes) // size) * size
    for start in range(0, total, size):
        numbers = np.arange(start, start + size, dtype=np.int64)
        yield np.stack([images[i % len(images)] for i in numbers]), numbers % classes


def fixed_rows(manifest: Manifest) -> Manifest:
    """The manifest of an engine that is built for the most rows of a memory, and for no fewer."""
    if manifest.memory is None:
        return manifest
    most = manifest.memory.rows
    inputs = tuple(
        replace(spec, shape=tuple(most if axis == ROWS else axis for axis in spec.shape)) for spec in manifest.inputs
    )
    return replace(manifest, inputs=inputs)


def any_class(manifest: Manifest, rows: int) -> Indices | None:
    """Class indices for outputs that do not depend on them: zeros int64 [rows], or None where the graph takes none."""
    return np.zeros(rows, np.int64) if len(manifest.classes) > 1 else None
