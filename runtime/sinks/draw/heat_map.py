"""The coloured map over an image, and the memory that drawing takes.

The map is painted as it is, never stretched to the image's own range, which would paint normal images red.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from kanoclip.runtime.types import FloatMap, Image

MAP_OPACITY = 0.7
"""Opacity where the map is 1; it falls in proportion to the map."""
MAP_FLOOR = 0.04
"""Map values below this could not be seen: such pixels stay exactly as they were."""

_Bytes = npt.NDArray[np.uint8]

# Of a map's 256 levels, what is left of the image and what is laid over it.
_OPACITY = np.arange(256) / 255 * MAP_OPACITY
_TRANSPARENCY: _Bytes = np.rint((1 - _OPACITY) * 255).astype(np.uint8)
_TURBO = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_TURBO)
_LAID: _Bytes = np.rint(_TURBO * _OPACITY[:, None, None]).astype(np.uint8)


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


def paint_heat_map(image: Image, anomaly_map: FloatMap, canvas: Canvas | None = None) -> None:
    """Blends the coloured map into an image, in place.

    Args:
        image: uint8 [H, W, 3] BGR.
        anomaly_map: float32 [h, w] in [0, 1], stretched over the image; what is not a number stays as it was.
        canvas: Memory for what is needed meanwhile; None takes new.
    """
    hot = anomaly_map >= MAP_FLOOR
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
    layer = array_of(canvas, "layer", area.shape, (height, width, 3))
    cv2.resize(cv2.LUT(level, _TRANSPARENCY), size, dst=transparency, interpolation=cv2.INTER_LINEAR)
    cv2.cvtColor(transparency, cv2.COLOR_GRAY2BGR, dst=layer)
    cv2.multiply(area, layer, dst=area, scale=1.0 / 255.0)
    cv2.resize(cv2.applyColorMap(level, _LAID), size, dst=layer, interpolation=cv2.INTER_LINEAR)
    cv2.add(area, layer, dst=area)
