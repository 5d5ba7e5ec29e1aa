"""What the detector asks of an inference engine."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


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
