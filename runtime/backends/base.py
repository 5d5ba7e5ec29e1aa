"""What the detector asks of an inference engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


def whole_batches(pictures: Sequence[Frames], classes: int, size: int) -> Iterator[tuple[Frames, Indices]]:
    """Pictures in full batches, each class used at least once: picture i goes with class i modulo their number.

    Args:
        pictures: Each uint8 [H, W, 3]; repeated where they are too few.
        classes: How many the graph has.
        size: Of a batch.

    Yields:
        Frames [size, H, W, 3] and class indices [size].
    """
    total = -(-max(len(pictures), classes) // size) * size
    for start in range(0, total, size):
        numbers = np.arange(start, start + size, dtype=np.int64)
        yield np.stack([pictures[i % len(pictures)] for i in numbers]), numbers % classes


class Backend(Protocol):
    """Runs a bundle's graph.

    Attributes:
        name: Engine and device, such as `onnxruntime-cpu`.
    """

    name: str

    def run(self, frames: Frames, class_index: Indices | None) -> tuple[Floats, Floats]:
        """Runs one batch.

        Args:
            frames: uint8 [B, H, W, 3], BGR, at model size, contiguous.
            class_index: int64 [B] when the bundle has several classes, else None.

        Returns:
            Maps float32 [B, H, W] and scores float32 [B], both in [0, 1].

        Raises:
            BackendError: The engine failed.
        """
        ...

    def close(self) -> None:
        """Releases the engine."""
        ...
