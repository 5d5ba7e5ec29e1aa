"""An image file's bytes to uint8 BGR: samples of more than 8 bits by their real depth, alpha composited, one page.

OpenCV alone takes the upper 8 of 16 bits, so that a 12-bit camera's images are nearly black, shows whatever colour lies
under transparent pixels, and gives the first page without a word.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from kanoclip.runtime.sources.files.headers.header import header_of
from kanoclip.runtime.sources.files.headers.orientation import orientation_of
from kanoclip.runtime.sources.files.headers.parts import JPEG, PNG, is_whole_png
from kanoclip.runtime.sources.files.jpeg import decode_jpeg, turned
from kanoclip.runtime.sources.files.reading import AS_IT_IS, Reading
from kanoclip.runtime.sources.files.samples import Samples, samples_of
from kanoclip.runtime.system.files.regular import read_regular
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

UNKNOWN = "not an image that OpenCV can decode"
_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".pgm", ".ppm", ".jp2"})
_MOST_FOLDERS = 1024
_STRIP = 1 << 20
_depths: OrderedDict[Path, int] = OrderedDict()
_warned: OrderedDict[tuple[Path, int], None] = OrderedDict()
_lock = threading.Lock()


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
    if raw.startswith(JPEG):  # 8 bits, no alpha and one page
        return refusal(raw, reading) or _jpeg(raw, scale, path, reading)
    samples = samples_of(raw)
    if samples.refused:
        return samples.refused
    if samples.pages > 1:
        log.warning("%s: only the first of its %d pages is scored", path or "an image", samples.pages)
    plain = samples.bits <= 8 and not samples.alpha and samples.most is None
    # First, and not beside this image: of both at a time there may be too much.
    folder = None
    if samples.bits > 8 and samples.most is samples.real_bits is reading.bit_depth is None and path is not None:
        folder = _depth_of_folder(path.parent)
    deep = cv2.IMREAD_UNCHANGED if samples.alpha else cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
    image = decode_as(raw, cv2.IMREAD_COLOR if plain else deep, reading)
    if isinstance(image, str) or plain:
        return image
    if image.dtype not in (np.uint8, np.uint16):
        return f"its samples are of the type {image.dtype}: convert it to 8 or 16 bits"
    colours = image if image.ndim == 2 else image[:, :, :3]
    if samples.most is not None and reading.bit_depth is None:
        shown = _scaled(colours, samples.most)
    elif image.dtype == np.uint8:
        shown = colours
    else:
        shown = _to_8_bits(colours, reading.bit_depth or _depth(colours, samples, path, folder))
    if samples.inverted:
        shown = np.asarray(cv2.bitwise_not(shown))
    if shown.ndim == 2 or shown.shape[2] == 1:
        shown = np.asarray(cv2.cvtColor(shown, cv2.COLOR_GRAY2BGR))
    if image.ndim == 3 and image.shape[2] == 4:
        shown = _over_background(shown, image[:, :, 3])
    return np.ascontiguousarray(shown, dtype=np.uint8)


def refusal(raw: bytes, reading: Reading = AS_IT_IS) -> str | None:
    """Why a file is not even given to a decoder: its format is none that is read, or its header states too much."""
    header = header_of(raw)
    if header is None:
        return UNKNOWN
    if raw.startswith(PNG) and not is_whole_png(raw):
        return "damaged (a chunk ends behind the file)"
    return reading.too_large(replace(header, depth=header.depth + len(raw) // header.pixels))


def decode_as(raw: bytes, flags: int, reading: Reading = AS_IT_IS) -> np.ndarray | str:
    """Decodes an image file as OpenCV does, but not one that is too large; upright whatever the flags.

    Args:
        raw: Its content.
        flags: OpenCV's IMREAD flags, not those of a reduced scale.
        reading: What its source sets.

    Returns:
        [H, W] or [H, W, channels] of the file's type as far as the flags keep it; or the reason why it is none.
    """
    if (refused := refusal(raw, reading)) is not None:
        return refused
    if flags != cv2.IMREAD_UNCHANGED:  # which leaves the image as it lies, as no other does
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(raw, dtype=np.uint8), flags)
    except cv2.error:  # for one, more pixels than OpenCV's own limit
        image = None
    return UNKNOWN if image is None else turned(np.asarray(image), orientation_of(raw))


def _jpeg(raw: bytes, scale: int, path: Path | None, reading: Reading) -> Image | str:
    image, damage = decode_jpeg(raw, scale)
    if image is None:
        return UNKNOWN
    if damage and not reading.keep_damaged:
        return f"damaged ({damage})"
    if damage:
        log.warning("%s: damaged (%s), scored all the same", path or "an image", damage)
    return image


def _to_8_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """The upper 8 of so many bits; some rows at a time."""
    shown = np.empty(values.shape, np.uint8)
    for rows in _strips(values):
        shown[rows] = np.minimum(values[rows] >> (bits - 8), 255)
    return shown


def _scaled(values: np.ndarray, most: int) -> np.ndarray:
    """8 bits of samples that end anywhere; some rows at a time."""
    shown = np.empty(values.shape, np.uint8)
    for rows in _strips(values):
        shown[rows] = np.minimum((values[rows].astype(np.uint32) * 255 + most // 2) // most, 255)
    return shown


def _strips(values: np.ndarray) -> Iterator[slice]:
    """Slices of rows."""
    rows = max(1, _STRIP // values.shape[1])
    return (slice(top, top + rows) for top in range(0, len(values), rows))


def _over_background(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Composites over `BACKGROUND`; some rows at a time, since it takes 30 bytes a pixel."""
    shown = np.empty(colours.shape, np.uint8)
    for rows in _strips(colours):
        part = alpha[rows].astype(np.float32)[:, :, None] / np.float32(np.iinfo(alpha.dtype).max)
        shown[rows] = np.rint(colours[rows] * part + BACKGROUND * (1 - part))
    return shown


def _depth(values: np.ndarray, samples: Samples, path: Path | None, folder: int | None) -> int:
    """Bits that the samples of a 16-bit image really have, beside others of its folder."""
    own = _range(values)
    if samples.real_bits is not None and own <= samples.real_bits:  # else they are spread over all 16 bits
        return max(8, samples.real_bits)
    if path is None or folder is None:
        return own
    if own > folder:
        _warn_once(
            path.parent,
            own,
            f"{path}: an image of {own} bits beside its folder's first ones of {folder} bits, which are shown "
            f"brighter: --bit-depth {own} takes all alike",
        )
    if folder - own <= MOST_DARKER:
        return max(own, folder)
    _warn_once(
        path.parent,
        own,
        f"{path}: nearly black beside its folder's images of {folder} bits; taken as one of {own} bits",
    )
    return own


def _range_of(path: Path) -> int | None:
    """The depth of an image file of 16 bits, by its range; None for another, or one that states its depth."""
    try:
        raw = read_regular(path, AS_IT_IS.max_bytes) or b""
    except OSError:
        return None
    samples = samples_of(raw)
    if samples.bits != 16 or samples.real_bits is not None or samples.most is not None or samples.refused:
        return None
    image = decode_as(raw, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    return _range(image) if not isinstance(image, str) and image.dtype == np.uint16 else None


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
            bits = max(_first_of(folder), default=DEPTHS[-1])
            if bits < DEPTHS[-1]:
                log.info("%s: images of %d bits, by the range of the first %d", folder, bits, LOOKED_AT)
            _depths[folder] = bits
            if len(_depths) > _MOST_FOLDERS:
                _depths.popitem(last=False)
        return _depths[folder]


def _first_of(folder: Path) -> list[int]:
    """The depths of the first images of a folder with 16 bits that state none, by their ranges."""
    found: list[int] = []
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    except OSError:  # of a folder that has gone, what was seen counts
        return found
    for path in paths[: 4 * LOOKED_AT]:
        if (bits := _range_of(path)) is not None:
            found.append(bits)
        if len(found) == LOOKED_AT:
            break
    return found
