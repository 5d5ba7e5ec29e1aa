"""An image file's bytes to uint8 BGR: samples of more than 8 bits by their real depth, alpha composited, one page.

OpenCV alone takes the upper 8 of 16 bits, so that a 12-bit camera's images are nearly black, shows whatever colour lies
under transparent pixels, and gives the first page without a word.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from kanoclip.runtime.sources.files.headers import Samples, samples_of
from kanoclip.runtime.sources.files.jpeg import decode_jpeg
from kanoclip.runtime.types import Image

log = logging.getLogger(__name__)

DEPTHS = (10, 12, 14, 16)
"""Bits that cameras deliver in 16."""
LOOKED_AT = 8
"""So many images of a folder tell the depth of all of it, where none states its own."""
BACKGROUND = 255
"""What shows through transparent pixels: white, as image viewers have it."""

MOST_DARKER = 2
"""An image may use so many bits less than its folder's: one that uses 1/16 of the range has another depth."""

_JPEG = b"\xff\xd8"
_UNKNOWN = "not an image that OpenCV can decode"
_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".pgm", ".ppm", ".jp2"})
_MOST_FOLDERS = 1024
_depths: OrderedDict[Path, int] = OrderedDict()
_warned: OrderedDict[tuple[Path, int], None] = OrderedDict()
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Reading:
    """How a source's images are read.

    Attributes:
        keep_damaged: Damaged JPEGs are scored with a warning, instead of being left out with the reason.
        bit_depth: Bits that samples of 16 really have; None to find out.
    """

    keep_damaged: bool = False
    bit_depth: int | None = None


AS_IT_IS = Reading()


def decode(raw: bytes, scale: int = 1, path: Path | None = None, reading: Reading = AS_IT_IS) -> Image | str:
    """Decodes an image file.

    Args:
        raw: Its content.
        scale: 1, or 2, 4, 8 for a JPEG at that fraction of its size.
        path: Where it is: its folder tells the depth of 16-bit images that do not state it. None: by its own range.
        reading: What its source sets.

    Returns:
        uint8 [H, W, 3] BGR, upright; or the reason why it is none.
    """
    if raw.startswith(_JPEG):  # 8 bits, no alpha and one page
        return _jpeg(raw, scale, path, reading)
    samples = samples_of(raw)
    if samples.refused:
        return samples.refused
    if samples.pages > 1:
        log.warning("%s: only the first of its %d pages is scored", path or "an image", samples.pages)
    if samples.bits <= 8 and not samples.alpha:
        image = _opencv(raw, cv2.IMREAD_COLOR)
        return _UNKNOWN if image is None else np.asarray(image, dtype=np.uint8)
    flags = cv2.IMREAD_UNCHANGED if samples.alpha else cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
    image = _opencv(raw, flags)
    if image is None:
        return _UNKNOWN
    if image.dtype not in (np.uint8, np.uint16):
        return f"its samples are of the type {image.dtype}: convert it to 8 or 16 bits"
    colours = image if image.ndim == 2 else image[:, :, :3]
    shown = (
        colours if image.dtype == np.uint8 else _to_8_bits(colours, reading.bit_depth or _depth(colours, samples, path))
    )
    if shown.ndim == 2 or shown.shape[2] == 1:
        shown = np.asarray(cv2.cvtColor(shown, cv2.COLOR_GRAY2BGR))
    if image.ndim == 3 and image.shape[2] == 4:
        shown = _over_background(shown, image[:, :, 3])
    return np.ascontiguousarray(shown, dtype=np.uint8)


def _jpeg(raw: bytes, scale: int, path: Path | None, reading: Reading) -> Image | str:
    image, damage = decode_jpeg(raw, scale)
    if image is None:
        return _UNKNOWN
    if damage and not reading.keep_damaged:
        return f"damaged ({damage})"
    if damage:
        log.warning("%s: damaged (%s), scored all the same", path or "an image", damage)
    return image


def _opencv(raw: bytes, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(raw, dtype=np.uint8), flags)
    except cv2.error:  # for one, more pixels than OpenCV's limit
        return None


def _to_8_bits(values: np.ndarray, bits: int) -> np.ndarray:
    return np.asarray(np.minimum(values >> (bits - 8), 255), np.uint8)


def _over_background(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Composites over `BACKGROUND`."""
    part = alpha.astype(np.float32)[:, :, None] / np.float32(np.iinfo(alpha.dtype).max)
    return np.asarray(np.rint(colours * part + BACKGROUND * (1 - part)), np.uint8)


def _depth(values: np.ndarray, samples: Samples, path: Path | None) -> int:
    """Bits that the samples of a 16-bit image really have."""
    own = _range(values)
    if samples.real_bits is not None and own <= samples.real_bits:  # else they are spread over all 16 bits
        return max(8, samples.real_bits)
    if samples.real_bits is not None or path is None:
        return own
    folder = _depth_of_folder(path.parent)
    if folder - own <= MOST_DARKER:
        return max(own, folder)
    _warn_once(
        path.parent,
        own,
        f"{path}: nearly black beside its folder's images of {folder} bits; taken as one of {own} bits",
    )
    return own


def _warn_once(folder: Path, bits: int, words: str) -> None:
    with _lock:
        if (folder, bits) in _warned:
            return
        _warned[folder, bits] = None
        if len(_warned) > _MOST_FOLDERS:
            _warned.popitem(last=False)
    log.warning("%s", words)


def _range(values: np.ndarray) -> int:
    """The least of `DEPTHS` that holds all values."""
    most = int(values.max()).bit_length()
    return next(bits for bits in DEPTHS if most <= bits)


def _depth_of_folder(folder: Path) -> int:
    """The depth of a folder's images that do not state theirs, from the first of them; looked at once."""
    with _lock:
        if folder not in _depths:
            bits = max((_range(one) for one in _first_of(folder)), default=DEPTHS[-1])
            if bits < DEPTHS[-1]:
                log.info("%s: images of %d bits, by the range of the first %d", folder, bits, LOOKED_AT)
            _depths[folder] = bits
            if len(_depths) > _MOST_FOLDERS:
                _depths.popitem(last=False)
        return _depths[folder]


def _first_of(folder: Path) -> list[np.ndarray]:
    """The first images of a folder with 16 bits that state no depth."""
    found: list[np.ndarray] = []
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
        for path in paths[: 4 * LOOKED_AT]:
            raw = path.read_bytes()
            samples = samples_of(raw)
            if samples.bits == 16 and samples.real_bits is None and not samples.refused:
                image = _opencv(raw, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
                found += [image] if image is not None and image.dtype == np.uint16 else []
            if len(found) == LOOKED_AT:
                break
    except OSError:  # of a folder that has gone, what was seen counts
        pass
    return found
