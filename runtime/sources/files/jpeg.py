"""JPEG files, of which libjpeg's warnings say whether they are damaged.

OpenCV fills up what a damaged file lacks, calls it a success, and writes libjpeg's warning to standard error at most.
simplejpeg has the same decoder, gives the same pixels, and tells.
"""

from __future__ import annotations

import cv2
import numpy as np

from kanoclip.runtime.sources.files.headers import orientation_of
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
_WARNINGS = ("Corrupt JPEG data", "Premature end of JPEG", "Inconsistent progression")
"""How libjpeg's messages about damaged data begin; other errors are of kinds that OpenCV may know how to decode."""
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
    if simplejpeg is not None:
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(raw)
            if colours not in ("CMYK", "YCCK"):
                least = {"min_height": -(-height // scale), "min_width": -(-width // scale)} if scale > 1 else {}
                return turned(simplejpeg.decode_jpeg(raw, "BGR", **least), orientation_of(raw)), ""
        except ValueError as error:
            words = str(error)
            damage = words if words.startswith(_WARNINGS) else ""
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
