"""A frame as the graph sees it, which is what memories are made of; and which bundles take one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from kanoclip.runtime.bundle.manifest.schema import Manifest
from kanoclip.runtime.detect.reference.fit import References
from kanoclip.runtime.errors import MemoryFileError
from kanoclip.runtime.types import Image

Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]
THUMBNAIL = 192
"""Longest side in pixels of what is held of a frame for the contact sheet."""


@dataclass(frozen=True, eq=False)
class Seen:
    """One frame.

    Attributes:
        descriptors: float16 [T, P, D].
        zero_shot: Maps without a memory, float32 [T, H, W].
        views: Descriptors of the frame mirrored or turned, float16 [k, T, P, D].
    """

    descriptors: Halves
    zero_shot: Floats
    views: Halves


def references_of(names: Sequence[str], seen: Sequence[Seen], grid: tuple[int, int]) -> References:
    """Frames as `fit` takes them.

    Args:
        names: One for each frame, of which there is at least one.
        seen: The frames.
        grid: (rows, columns) of the P cells.
    """
    return References(
        tuple(names),
        np.stack([one.descriptors for one in seen]),
        np.stack([one.zero_shot for one in seen]),
        grid,
        np.concatenate([one.views for one in seen]),
        np.repeat(np.arange(len(seen)), [len(one.views) for one in seen]).astype(np.int32),
    )


def takes_memory(manifest: Manifest) -> tuple[str, int]:
    """The descriptors' digest and the most rows of a bundle whose graph takes a memory.

    Raises:
        MemoryFileError: It takes none.
    """
    if manifest.descriptor is None or manifest.memory is None:
        raise MemoryFileError(
            f"{manifest.name}: its graph takes no reference memory: export it again, with kanoclip-export"
        )
    return manifest.descriptor.sha256, manifest.memory.rows


def thumbnail(image: Image, size: tuple[int, int] | None = None) -> Image:
    """A frame made small, for a contact sheet.

    Args:
        image: uint8 [H, W, 3].
        size: (height, width) of the original, where `image` is stretched; None where it is not.

    Returns:
        uint8 [h, w, 3], its longer side at most THUMBNAIL, of the original's aspect.
    """
    height, width = size or image.shape[:2]
    share = min(THUMBNAIL / max(height, width), 1)
    small = max(round(width * share), 1), max(round(height * share), 1)
    return np.asarray(cv2.resize(image, small, interpolation=cv2.INTER_AREA), np.uint8)
