"""Ground-truth masks: from a file to pixels, and from the image's size to the model's."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from kanoclip.runtime.errors import DataError
from kanoclip.runtime.sources.files.decode import decode_as
from kanoclip.runtime.sources.files.headers.parts import JPEG
from kanoclip.runtime.sources.files.reading import AS_IT_IS
from kanoclip.runtime.sources.files.samples import samples_of
from kanoclip.runtime.system.files.regular import read_regular
from kanoclip.train.data.files import image_files, is_folder

BoolMask = npt.NDArray[np.bool_]
"""bool [H, W], true where anomalous."""

HANDFUL = 8
"""Up to so many different values are labels (0 and 255, or VisA's 0, 1, 2, ...); more are shades between two."""


MOSTLY = 0.9
"""A mask that covers more of its image is hardly one of a defect."""
_HALF, _EDGES = 0.5, 0.95
"""So is one that covers half of it, and this share of the image's outermost pixels: its colours are swapped."""


class DecodedMask(NamedTuple):
    """A mask file's content.

    Attributes:
        pixels: bool [H, W], true where anomalous.
        shades: Different values in the file; more than `HANDFUL` in a mask that was resized or compressed with loss.
        in_alpha: Its colours are the same everywhere, and its transparency tells what is anomalous.
    """

    pixels: BoolMask
    shades: int
    in_alpha: bool = False

    @property
    def suspicion(self) -> str | None:
        """Why this may be no mask of a defect; None where it looks like one."""
        share = float(self.pixels.mean())
        rows, columns = self.pixels[[0, -1]], self.pixels[:, [0, -1]]
        edges = float(np.concatenate([rows.ravel(), columns.ravel()]).mean())
        if share > MOSTLY or (share > _HALF and edges > _EDGES):
            return f"mask of nearly all of the image, {share:.0%}: are anomalous and normal swapped?"
        return None


def decode_mask(path: Path) -> DecodedMask | str:
    """Reads a mask file of any depth, with or without palette, upright by its EXIF orientation as its image is.

    Labels count as anomalous from 1 on. Where a resize or JPEG has smeared the edges, that would make the mask grow
    with every faint trace of it, so there a pixel counts from half of the largest value on. What is transparent is
    normal, whatever colour lies under it.

    Args:
        path: The file; or a folder of masks, each of another defect of the same image, as MVTec LOCO has them.

    Returns:
        The mask, or the reason why it cannot be read.
    """
    return _decode_folder(path) if is_folder(path) else _decode_file(path)


def _decode_folder(folder: Path) -> DecodedMask | str:
    found: DecodedMask | None = None
    for path in image_files(folder):
        one = _decode_file(path)
        if isinstance(one, str):
            return f"{path.name}: {one}"
        if found is not None and found.pixels.shape != one.pixels.shape:
            return f"{path.name} is of another size than the others of its folder"
        found = one if found is None else DecodedMask(found.pixels | one.pixels, max(found.shades, one.shades))
    return "an empty folder" if found is None else found


def _decode_file(path: Path) -> DecodedMask | str:
    try:
        raw = read_regular(path, AS_IT_IS.max_bytes)
    except OSError as error:
        return error.strerror or "no access"
    if not raw:
        return "the file is empty" if raw is not None else "the file is too large for a mask"
    # Not IMREAD_GRAYSCALE: it turns palette colours to grey, and a faint one would round to 0.
    clear = samples_of(raw).alpha
    decoded = decode_as(raw, cv2.IMREAD_UNCHANGED if clear else cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    if isinstance(decoded, str):
        return decoded
    in_alpha = False
    if decoded.ndim == 3 and decoded.shape[2] == 4:
        alpha, decoded = decoded[:, :, 3], decoded[:, :, :3]
        in_alpha = bool((alpha != alpha[0, 0]).any() and (decoded == decoded[0, 0]).all())
        values = alpha if in_alpha else np.where(alpha > 0, decoded.max(axis=2), 0)
    else:
        values = decoded if decoded.ndim == 2 else decoded.max(axis=2)
    if values.dtype.kind == "f":
        values = np.nan_to_num(values)
    shades = len(np.unique(values))
    if shades <= HANDFUL and not raw.startswith(JPEG):  # few shades in a JPEG may be its noise around 0
        return DecodedMask(np.asarray(values > 0), shades, in_alpha)
    largest = values.max()
    return DecodedMask(np.asarray((values > 0) & (values >= largest / 2)), shades, in_alpha)


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
