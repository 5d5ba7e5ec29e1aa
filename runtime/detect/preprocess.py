"""From a camera frame to the graph's input: one function for training, parity, evaluation and the camera.

Everything else that CLIP's preprocessing does (channel order, scale, mean, std) is folded into the exported graph, so
the resize below is all that happens outside of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from kanoclip.runtime.errors import FrameError
from kanoclip.runtime.types import Image, Images


@dataclass(frozen=True, slots=True)
class Prepared:
    """A frame at the model's size, which is all that scoring needs of it.

    Attributes:
        image: uint8 [h, w, 3], BGR, contiguous; it may be the frame itself. Where it is cut into tiles, it has the size
            of the stitched map.
        height: Rows of the original image.
        width: Columns of the original image.
        resize_ms: Milliseconds that resizing and cutting took.
        resize_cpu_ms: Processor time of the calling thread in it.
        tiles: The tiles of `image`, each at the model's size, uint8 [n, h, w, 3]; None where the graph sees it whole.
    """

    image: Image
    height: int
    width: int
    resize_ms: float
    resize_cpu_ms: float
    tiles: Images | None = None

    @property
    def images(self) -> Images:
        """What the graph sees, uint8 [n, h, w, 3]: the tiles row by row, or the image alone, which is not copied."""
        return self.image[None] if self.tiles is None else self.tiles


def check_frame(frame: object) -> Image:
    """Returns the frame if it is an image that the detector can take.

    Args:
        frame: Expected uint8 [H, W, 3], BGR, H and W at least 1.

    Raises:
        FrameError: It is not; the message says what it is and how to convert it.
    """
    if not isinstance(frame, np.ndarray):
        raise FrameError(f"frame is a {type(frame).__name__}, not a numpy array: pass uint8 [H, W, 3] in BGR order")
    if frame.dtype != np.uint8:
        raise FrameError(f"frame has dtype {frame.dtype}: pass uint8 values in 0..255 (8-bit BGR, as cv2.imread gives)")
    if frame.ndim != 3 or frame.shape[2] != 3:
        channels = 1 if frame.ndim == 2 else frame.shape[2] if frame.ndim == 3 else 0
        code = {1: "COLOR_GRAY2BGR", 4: "COLOR_BGRA2BGR"}.get(channels)
        hint = f" (cv2.cvtColor(frame, cv2.{code}) makes one)" if code else ""
        raise FrameError(f"frame has shape {list(frame.shape)}: pass [height, width, 3] in BGR order{hint}")
    if 0 in frame.shape:
        raise FrameError(f"frame has shape {list(frame.shape)}: it is empty")
    return frame


def resize(frame: Image, height: int, width: int) -> Image:
    """Stretches a frame to the model's size.

    Args:
        frame: uint8 [H, W, 3], any channel order.
        height: Rows wanted.
        width: Columns wanted.

    Returns:
        uint8 [height, width, 3], contiguous. The frame itself when it has that size already.
    """
    while frame.shape[0] >= 2 * height and frame.shape[1] >= 2 * width:
        frame = _resized(frame, frame.shape[0] // 2, frame.shape[1] // 2, cv2.INTER_AREA)
    shrunk = (min(frame.shape[0], height), min(frame.shape[1], width))
    if shrunk != frame.shape[:2]:
        frame = _resized(frame, *shrunk, cv2.INTER_AREA)
    if shrunk != (height, width):
        frame = _resized(frame, height, width, cv2.INTER_LINEAR)
    return np.ascontiguousarray(frame)


def _resized(frame: Image, height: int, width: int, interpolation: int) -> Image:
    return np.asarray(cv2.resize(frame, (width, height), interpolation=interpolation), dtype=np.uint8)
