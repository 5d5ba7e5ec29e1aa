"""The coloured map over an image, and the memory that drawing takes.

Its colours depend on the map's value and the pixel threshold alone. They are never stretched to the image's own range,
which would paint normal images red.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from kanoclip.runtime.sinks.draw.palette import layer
from kanoclip.runtime.types import FloatMap, Image

_Bytes = npt.NDArray[np.uint8]


class Canvas:
    """Memory to draw in, taken once and used again; for one thread.

    How much an image takes while it is drawn depends on what it shows. Taken anew for each, the largest so far would
    add to the process's memory for hours after the start, whenever two of them met.
    """

    def __init__(self) -> None:
        self._taken: dict[str, _Bytes] = {}

    def array(self, name: str, shape: tuple[int, ...], most: tuple[int, ...] | None = None) -> _Bytes:
        """Memory with whatever was in it before.

        Args:
            name: What it is for: each name has its own, which its next use overwrites.
            shape: Wanted.
            most: The largest shape that an image of this size may want; None for this one.

        Returns:
            uint8 of that shape, contiguous.
        """
        size = math.prod(shape)
        taken = self._taken.get(name)
        if taken is None or taken.size < size:
            # Written to, for only then is it there: not some of it now and the rest with a larger defect.
            taken = self._taken[name] = np.full(math.prod(most or shape), 0, np.uint8)
        return taken[:size].reshape(shape)


def array_of(canvas: Canvas | None, name: str, shape: tuple[int, ...], most: tuple[int, ...] | None = None) -> _Bytes:
    """`Canvas.array`, or without a canvas new memory."""
    return np.empty(shape, np.uint8) if canvas is None else canvas.array(name, shape, most)


def paint_heat_map(image: Image, anomaly_map: FloatMap, pixel_threshold: float, canvas: Canvas | None = None) -> None:
    """Blends the coloured map into an image, in place; what is well below the threshold stays as it is.

    Args:
        image: uint8 [H, W, 3] BGR.
        anomaly_map: float32 [h, w] in [0, 1], stretched over the image; what is not a number stays as it was.
        pixel_threshold: Map value from which a region begins, in [0, 1].
        canvas: Memory for what is needed meanwhile; None takes new.
    """
    transparent, laid = layer(pixel_threshold)
    seen = np.flatnonzero(transparent < 255)
    # Half a level lower is rounded to the first level that is seen.
    hot = anomaly_map >= (seen[0] - 0.5) / 255 if seen.size else np.zeros(anomaly_map.shape, bool)
    hot_rows, hot_columns = np.flatnonzero(hot.any(axis=1)), np.flatnonzero(hot.any(axis=0))
    if hot_rows.size == 0:
        return
    rows, columns = anomaly_map.shape
    height, width = image.shape[:2]
    # Only the rectangle with visible values is touched: most images are normal, and blending is expensive. One map cell
    # more on each side, since interpolation bleeds that far.
    top, bottom = max(int(hot_rows[0]) - 1, 0), min(int(hot_rows[-1]) + 2, rows)
    left, right = max(int(hot_columns[0]) - 1, 0), min(int(hot_columns[-1]) + 2, columns)
    y0, y1 = top * height // rows, -(-bottom * height // rows)
    x0, x1 = left * width // columns, -(-right * width // columns)
    # Coloured and premultiplied by opacity at the map's size, so that the full size needs one resize and two 8-bit
    # passes. Cutting the rectangle out first moves the heat map by less than a pixel.
    level = cv2.convertScaleAbs(anomaly_map[top:bottom, left:right], alpha=255.0)
    level *= hot[top:bottom, left:right]
    area = image[y0:y1, x0:x1]
    size = (x1 - x0, y1 - y0)
    # In place and with one big temporary used twice: fresh 6 MB arrays cost more than the arithmetic.
    transparency = array_of(canvas, "kept", area.shape[:2], (height, width))
    colours = array_of(canvas, "colours", area.shape, (height, width, 3))
    cv2.resize(cv2.LUT(level, transparent), size, dst=transparency, interpolation=cv2.INTER_LINEAR)
    cv2.cvtColor(transparency, cv2.COLOR_GRAY2BGR, dst=colours)
    cv2.multiply(area, colours, dst=area, scale=1.0 / 255.0)
    cv2.resize(cv2.applyColorMap(level, laid), size, dst=colours, interpolation=cv2.INTER_LINEAR)
    cv2.add(area, colours, dst=area)
