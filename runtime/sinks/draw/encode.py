"""Images and maps as bytes for files, browsers and messages."""

from __future__ import annotations

import cv2
import numpy as np

from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.types import FloatMap, Image


def encode_jpeg(image: Image, quality: int, max_side: int | None = None) -> bytes:
    """An image as JPEG.

    Args:
        image: uint8 [H, W, 3] BGR.
        quality: From 1 to 100.
        max_side: Scale it down so that neither side has more pixels; None leaves it as it is.

    Raises:
        SinkError: It cannot be: a JPEG has at most 65,535 pixels a side.
    """
    height, width = image.shape[:2]
    factor = min(1.0, max_side / max(height, width)) if max_side is not None else 1.0
    if factor < 1.0:
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return _encode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])


def encode_map(anomaly_map: FloatMap) -> bytes:
    """A map as an 8-bit grey PNG, which loses nothing but what is finer than 1/255.

    Args:
        anomaly_map: float32 [h, w] in [0, 1]; what is not a number becomes 0.
    """
    level = np.rint(np.clip(np.nan_to_num(anomaly_map, nan=0.0), 0.0, 1.0) * 255.0).astype(np.uint8)
    return _encode(".png", level, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def _encode(suffix: str, image: Image, options: list[int]) -> bytes:
    try:
        done, data = cv2.imencode(suffix, image, options)
    except cv2.error:
        done = False
    if not done:
        raise SinkError(f"an image of {image.shape[1]}x{image.shape[0]} pixels cannot be encoded as {suffix[1:]}")
    return data.tobytes()
