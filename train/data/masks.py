"""Ground-truth masks: from a file to pixels, and from the image's size to the model's."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from kanoclip.runtime.errors import DataError

BoolMask = npt.NDArray[np.bool_]
"""bool [H, W], true where anomalous."""

HANDFUL = 8
"""Up to so many different values are labels (0 and 255, or VisA's 0, 1, 2, ...); more are shades between two."""


class DecodedMask(NamedTuple):
    """A mask file's content.

    Attributes:
        pixels: bool [H, W], true where anomalous.
        shades: Different values in the file; more than `HANDFUL` in a mask that was resized or compressed with loss.
    """

    pixels: BoolMask
    shades: int


def decode_mask(path: Path) -> DecodedMask | str:
    """Reads a mask file of any depth, with or without palette.

    Labels count as anomalous from 1 on. Where a resize or JPEG has smeared the edges, that would make the mask grow
    with every faint trace of it, so there a pixel counts from half of the largest value on.

    Returns:
        The mask, or the reason why it cannot be read.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        return error.strerror or "no access"
    try:
        # Not IMREAD_GRAYSCALE: it turns palette colours to grey, and a faint one would round to 0.
        decoded = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH) if raw else None
    except cv2.error:  # for one, more pixels than OpenCV's limit
        decoded = None
    if decoded is None:
        return "not an image that OpenCV can decode" if raw else "the file is empty"
    values = decoded if decoded.ndim == 2 else decoded.max(axis=2)
    if values.dtype.kind == "f":
        values = np.nan_to_num(values)
    shades = len(np.unique(values))
    if shades <= HANDFUL and not raw.startswith(b"\xff\xd8"):  # few shades in a JPEG may be its noise around 0
        return DecodedMask(np.asarray(values > 0), shades)
    largest = values.max()
    return DecodedMask(np.asarray((values > 0) & (values >= largest / 2)), shades)


def read_mask(path: Path, image_shape: tuple[int, ...]) -> BoolMask:
    """Reads an image's mask.

    Args:
        path: The mask's file.
        image_shape: The image's (height, width), or its whole shape.

    Returns:
        bool [H, W], true where anomalous.

    Raises:
        DataError: It cannot be read, or its size is not the image's.
    """
    decoded = decode_mask(path)
    if isinstance(decoded, str):
        raise DataError(f"cannot read the mask {path}: {decoded}; copy or download it again, or remove it")
    pixels = decoded.pixels
    height, width = image_shape[:2]
    if pixels.shape != (height, width):
        raise DataError(
            f"the mask {path} is {pixels.shape[1]} x {pixels.shape[0]} (width x height), its image is "
            f"{width} x {height}: replace it with the mask of this image, at the image's size"
        )
    return pixels


def evaluation_mask(mask: BoolMask, height: int, width: int) -> BoolMask:
    """A mask at the size of the maps it is compared with, by nearest neighbour.

    Args:
        mask: bool [H, W].
        height: Rows wanted.
        width: Columns wanted.

    Returns:
        bool [height, width].
    """
    resized = cv2.resize(mask.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized, np.uint8).view(np.bool_)


def training_mask(mask: BoolMask, height: int, width: int) -> BoolMask:
    """A mask at model size that no thin defect falls out of: true wherever some anomalous area lies in the pixel.

    That is the mean over each model pixel's area, above 0. It is counted in integers, because cv2.INTER_AREA rounds
    at the pixels' edges, and does not average an axis when the other one grows.

    Args:
        mask: bool [H, W].
        height: Rows wanted.
        width: Columns wanted.

    Returns:
        bool [height, width].
    """
    return np.ascontiguousarray(_any_within(_any_within(mask, height).T, width).T, np.bool_)


def _any_within(mask: BoolMask, rows: int) -> BoolMask:
    """[H, W] -> [rows, W]: whether any of the old rows that a new row covers, even in part, is true."""
    old = len(mask)
    new = np.arange(rows)
    first, end = new * old // rows, -(-(new + 1) * old // rows)
    counts = np.zeros((old + 1, mask.shape[1]), np.int32)
    np.cumsum(mask, axis=0, out=counts[1:])
    return np.asarray(counts[end] > counts[first])
