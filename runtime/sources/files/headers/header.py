"""What an image's header tells without decoding it: its size, which way is up, what the decoder takes."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from kanoclip.runtime.sources.files.headers.orientation import (
    orientation_in,
    orientation_of_png,
    orientation_of_webp,
)
from kanoclip.runtime.sources.files.headers.parts import JPEG, PNG, chunks, directories, is_tiff, is_webp, segments
from kanoclip.runtime.system.files.regular import read_start

PIXEL_BYTES = 4
"""What a pixel of a limit may take."""
_ENOUGH = 1 << 18
"""Bytes read: a JPEG's size comes after its EXIF block and colour profile, of at most 64 KiB a piece."""
_SEVERAL_SCANS = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
"""Markers of progressive JPEGs."""
_NO_SIZE = frozenset({0xC4, 0xC8, 0xCC})
"""JPEG markers among C0..CF that start no frame."""
_BLANK = rb"(?:\s|#[^\n]*\n)+"
_PNM = re.compile(rb"P[1-6]" + _BLANK + rb"(\d{1,9})" + _BLANK + rb"(\d{1,9})\s")


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of an image before it is decoded.

    Attributes:
        height: Rows as they are saved.
        width: Columns as they are saved.
        orientation: EXIF's, 1 to 8, of which 5 to 8 swap rows and columns.
        part: Pixels of the largest part that the decoder takes at a time, such as a tile, whatever the size.
        depth: Bytes that the decoder takes for each pixel: more than those of 8-bit BGR for 16 bits, transparency, and
            where it holds the whole image in another form.
    """

    height: int
    width: int
    orientation: int = 1
    part: int = 0
    depth: int = 3

    @property
    def pixels(self) -> int:
        """Pixels that the decoder needs room for."""
        return max(self.height * self.width, self.part)

    @property
    def room(self) -> int:
        """The same, counted higher where a pixel takes more than `PIXEL_BYTES`."""
        return max(self.pixels, self.pixels * self.depth // PIXEL_BYTES)

    @property
    def upright(self) -> tuple[int, int]:
        """(height, width) when it is turned."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def image_size(path: Path) -> tuple[int, int] | None:
    """The (height, width) of an image file, upright by its EXIF orientation.

    Returns:
        None where the header does not tell: another format, a damaged file, one that cannot be read. Decode it then.
    """
    try:
        data = read_start(path, _ENOUGH)
    except OSError:
        return None
    return size_of(data)


def size_of(data: bytes) -> tuple[int, int] | None:
    """As `image_size`, from a file's content or the beginning of it."""
    header = header_of(data)
    return None if header is None else header.upright


def header_of(data: bytes) -> Header | None:
    """The header of a PNG, JPEG, BMP, TIFF, WebP, GIF, PNM or JPEG 2000 file; None for others, or if it is damaged."""
    try:
        header = _header(data)
    except (struct.error, IndexError, OverflowError):
        return None
    return header if header is not None and header.height > 0 and header.width > 0 else None


def _before_the_image(png: bytes) -> Iterator[tuple[bytes, int, int]]:
    return takewhile(lambda one: one[0] != b"IDAT", chunks(png))


def _header(data: bytes) -> Header | None:
    if data.startswith(PNG) and data[12:16] == b"IHDR":
        width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
        return Header(
            height, width, orientation_of_png(data), depth=_channels_of_png(data, colour) * (2 if bits == 16 else 1)
        )
    if data.startswith(JPEG):
        return _jpeg(data)
    if data.startswith(b"BM"):
        if struct.unpack_from("<I", data, 14)[0] < 40:
            width, height = struct.unpack_from("<HH", data, 18)
        else:
            width, height = struct.unpack_from("<ii", data, 18)
        return Header(abs(height), width, depth=4)  # a negative height says that the rows go downwards
    if is_tiff(data):
        tags, _ = directories(data)
        turned = tags.get(274, 1)
        return Header(
            *(tags.get(257, 0), tags.get(256, 0), turned if 1 <= turned <= 8 else 1),
            tags.get(322, 0) * tags.get(323, 0),
            max(4, -(-tags.get(258, 1) * tags.get(277, 1) // 8)),
        )
    if is_webp(data):
        return _webp(data)
    if data[:6] in (b"GIF87a", b"GIF89a"):
        width, height = struct.unpack_from("<HH", data, 6)
        return Header(height, width, depth=4)
    if (found := _PNM.match(data[:4096])) is not None:
        return Header(int(found[2]), int(found[1]), depth=6)  # 16 bits or not
    return _jpeg_2000(data)


def _jpeg(data: bytes) -> Header | None:
    size, orientation, depth = None, 1, 3
    for marker, start, end in segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in _NO_SIZE:
            size = struct.unpack_from(">HH", data, start + 1)
            depth = _depth_of_jpeg(data[start:end], several_scans=marker in _SEVERAL_SCANS)
            break
        if marker == 0xE1 and data[start : start + 6] == b"Exif\0\0":
            orientation = orientation_in(data[start + 6 : end])
    return None if size is None else Header(size[0], size[1], orientation, depth=depth)


def _depth_of_jpeg(frame: bytes, *, several_scans: bool) -> int:
    """Bytes a pixel: those of its planes, and where they come in several scans, all their coefficients."""
    factors = [(one >> 4, one & 15) for one in frame[7 : 7 + 3 * frame[5] : 3]]
    planes = max(3, len(factors))
    across, down = (max((one[axis] for one in factors), default=1) or 1 for axis in (0, 1))
    coefficients = 2 * sum(one * other for one, other in factors) / (across * down)
    return planes + (math.ceil(coefficients) if several_scans else 0)


def _channels_of_png(data: bytes, colour: int) -> int:
    """What OpenCV makes of a colour type; with transparency four, whatever else."""
    if colour in (3, 4, 6) or any(kind == b"tRNS" for kind, _, _ in _before_the_image(data)):
        return 4
    return 3


def _webp(data: bytes) -> Header | None:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[place : place + 3], "little") + 1 for place in (24, 27))
        # EXIF comes after the image: of the beginning of a file alone, nobody knows which way is up.
        orientation = orientation_of_webp(data) if data[20] & 0x08 else 1
        return None if orientation is None or len(data) < 30 else Header(height, width, orientation, depth=4)
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return Header((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1, depth=4)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header(height & 0x3FFF, width & 0x3FFF)
    return None


def _jpeg_2000(data: bytes) -> Header | None:
    if data[4:8] != b"jP  " and data[:4] != b"\xff\x4f\xff\x51":
        return None
    # The stream inside is what the decoder goes by, whatever the box round it states.
    place = data.find(b"\xff\x4f\xff\x51")
    if place < 0:
        return None
    right, bottom, left, top, _, _, _, _, planes = struct.unpack_from(">8IH", data, place + 8)
    return Header(bottom - top, right - left, 1, right * bottom, 4 * planes + 3)  # each sample of 32 bits
