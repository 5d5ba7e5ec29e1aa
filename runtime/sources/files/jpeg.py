"""JPEG files, of which libjpeg's warnings say whether they are damaged.

OpenCV fills up what a damaged file lacks, calls it a success, and writes libjpeg's warning to standard error at most.
simplejpeg has the same decoder, gives the same pixels, and tells.
"""

from __future__ import annotations

from contextlib import suppress

import cv2
import numpy as np

from kanoclip.runtime.errors import one_line
from kanoclip.runtime.sources.files.headers.orientation import orientation_of
from kanoclip.runtime.types import Image

try:
    import simplejpeg
except ImportError:  # an installation of older days: OpenCV decodes, and damage goes unseen
    simplejpeg = None

_SCALES = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_TURNS: dict[int, tuple[int | None, int | None]] = {
    2: (None, 1),
    3: (cv2.ROTATE_180, None),
    4: (None, 0),
    5: (cv2.ROTATE_90_CLOCKWISE, 1),
    6: (cv2.ROTATE_90_CLOCKWISE, None),
    7: (cv2.ROTATE_90_COUNTERCLOCKWISE, 1),
    8: (cv2.ROTATE_90_COUNTERCLOCKWISE, None),
}
"""EXIF orientation -> how to turn, then the axis to mirror over."""


def decode_jpeg(raw: bytes, scale: int) -> tuple[Image | None, str]:
    """Decodes a JPEG file.

    Args:
        raw: Its content.
        scale: 1, 2, 4 or 8: the image is smaller by that.

    Returns:
        uint8 [H, W, 3] BGR, upright by its EXIF orientation, or None where it cannot be decoded; and what is damaged,
        empty if nothing is.
    """
    damage = ""
    header = None
    if simplejpeg is not None:
        with suppress(ValueError):  # of a form that it does not know, and OpenCV may
            header = simplejpeg.decode_jpeg_header(raw)
    if header is not None:
        height, width, colours, _ = header
        printed = colours in ("CMYK", "YCCK")
        least = {"min_height": -(-height // scale), "min_width": -(-width // scale)} if scale > 1 else {}
        try:
            image = simplejpeg.decode_jpeg(raw, "CMYK" if printed else "BGR", **least)
            if not printed:  # of which OpenCV makes BGR
                return turned(image, orientation_of(raw)), ""
            del image
        except ValueError as error:  # what comes after a good header: data that are cut, or markers in their midst
            damage = one_line(error) or "no reason given"
    try:
        image = cv2.imdecode(np.frombuffer(raw, dtype=np.uint8), _SCALES[scale])
    except cv2.error:  # for one, more pixels than OpenCV's limit
        image = None
    return (None if image is None else np.asarray(image, dtype=np.uint8)), damage


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """An image upright, by its EXIF orientation from 1 to 8."""
    turn, axis = _TURNS.get(orientation, (None, None))
    turned = image if turn is None else cv2.rotate(image, turn)
    return np.asarray(turned if axis is None else cv2.flip(turned, axis))
