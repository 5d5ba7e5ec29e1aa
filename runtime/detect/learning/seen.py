"""A frame as the graph sees it, which is what memories are made of; and which bundles take one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from kanoclip.runtime.bundle.manifest.schema import Manifest
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.preprocess import Prepared
from kanoclip.runtime.detect.reference.fit import References
from kanoclip.runtime.detect.reference.memory import ReferenceMemory
from kanoclip.runtime.detect.verdict import decide
from kanoclip.runtime.errors import FrameError, MemoryFileError
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


def look(detector: Detector, frame: Prepared, class_name: str | None = None) -> Seen:
    """What a reference memory is made of: a frame's descriptors and its zero-shot maps, whatever memory there is.

    No region of interest is applied.

    Args:
        detector: What looks.
        frame: What its `prepare` made.
        class_name: The class of the maps; None for the first.

    Raises:
        FrameError: The class is unknown, or the frame was cut into other tiles than the bundle's of now.
        BackendError: The bundle has no descriptor output, or the engine failed, or returned NaN.
    """
    index, _ = detector.rules.known(class_name)
    images, tiles = list(frame.images), detector.rules.tiling.count
    if len(images) != tiles:
        raise FrameError(f"the frame is cut into {len(images)} tiles, and not {tiles}: prepare it again")
    descriptors = detector.graph.describe(images).astype(np.float16)
    maps = [output.map for run in detector.graph.run(images, index, None) for output in run]
    return Seen(descriptors, np.stack(maps), np.empty((0, *descriptors.shape), np.float16))


def score_by(memory: ReferenceMemory, detector: Detector, frame: Prepared, class_name: str | None = None) -> float:
    """A frame's score by a memory that is not in use, inside of the class's region of interest.

    Args:
        memory: Made for the detector's bundle.
        detector: What scores.
        frame: What its `prepare` made.
        class_name: One of the bundle's classes; None for the first.

    Returns:
        In [0, 1]: what the detector would give with that memory.

    Raises:
        FrameError: The class is unknown.
        BackendError: The engine failed, or returned NaN.
    """
    index, name = detector.rules.known(class_name)
    limits = replace(detector.rules.limits(class_name), memory=memory.tensors())
    runs = detector.graph.run(list(frame.images), index, limits.memory)
    return decide(frame, [output for run in runs for output in run], detector.rules.tiling, name, limits).score


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
