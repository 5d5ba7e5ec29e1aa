"""What an image's header tells without decoding it: its size, its samples, its pages."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

_ENOUGH = 1 << 18
"""Bytes read: a JPEG's size comes after its EXIF block and colour profile, of at most 64 KiB a piece."""
_NO_SIZE = frozenset({0xC4, 0xC8, 0xCC})
"""JPEG markers among C0..CF that start no frame."""


def image_size(path: Path) -> tuple[int, int] | None:
    """The (height, width) of a PNG, JPEG or BMP file, upright by its EXIF orientation.

    Returns:
        None where the header does not tell: another format, a damaged file, one that cannot be read. Decode it then.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_ENOUGH)
    except OSError:
        return None
    return size_of(data)


def size_of(data: bytes) -> tuple[int, int] | None:
    """As `image_size`, from a file's content or the beginning of it."""
    size: tuple[int, int] | None = None
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR":
            width, height = struct.unpack_from(">II", data, 16)
            size = height, width
        elif data.startswith(b"BM") and struct.unpack_from("<I", data, 14)[0] >= 40:
            width, height = struct.unpack_from("<ii", data, 18)
            size = abs(height), width  # a negative height says that the rows go downwards
        elif data.startswith(b"\xff\xd8"):
            size = _jpeg_size(data)
    except (struct.error, IndexError):
        return None
    return size if size is not None and min(size) > 0 else None


def orientation_of(jpeg: bytes) -> int:
    """A JPEG file's EXIF orientation, 1 to 8; 1 where it has none that can be read."""
    position = 2
    try:
        while jpeg[position] == 0xFF and (marker := jpeg[position + 1]) not in (0xDA, 0xD9):
            if marker == 0xFF:  # padding
                position += 1
                continue
            length = struct.unpack_from(">H", jpeg, position + 2)[0]
            if marker == 0xE1 and jpeg[position + 4 : position + 10] == b"Exif\0\0":
                return _orientation(jpeg[position + 10 : position + 2 + length])
            position += 2 + length
    except (struct.error, IndexError):
        pass
    return 1


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    position, turned = 2, False
    while data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # padding
            position += 1
            continue
        length = struct.unpack_from(">H", data, position + 2)[0]
        if 0xC0 <= marker <= 0xCF and marker not in _NO_SIZE:
            height, width = struct.unpack_from(">HH", data, position + 5)
            return (width, height) if turned else (height, width)
        if marker == 0xE1 and data[position + 4 : position + 10] == b"Exif\0\0":
            turned = _orientation(data[position + 10 : position + 2 + length]) >= 5
        position += 2 + length
    return None


def _orientation(exif: bytes) -> int:
    """1 to 8, of which 5 to 8 swap rows and columns; 1 where it is not given."""
    order = "<" if exif.startswith(b"II") else ">"
    start = struct.unpack_from(f"{order}I", exif, 4)[0]
    for entry in range(struct.unpack_from(f"{order}H", exif, start)[0]):
        tag, _, _, value = struct.unpack_from(f"{order}HHIH", exif, start + 2 + 12 * entry)
        if tag == 0x0112:
            return int(value)
    return 1


@dataclass(frozen=True, slots=True)
class Samples:
    """What an image's samples are.

    Attributes:
        bits: Bits of each in the file, or what the decoder makes of them.
        real_bits: Bits that are used, where the file states it.
        alpha: Whether there is transparency.
        pages: Pages or frames of an animation.
        refused: Why it cannot be scored; empty if it can.
    """

    bits: int = 8
    real_bits: int | None = None
    alpha: bool = False
    pages: int = 1
    refused: str = ""


def samples_of(data: bytes) -> Samples:
    """Reads a PNG, TIFF, WebP, PNM or JPEG 2000 file's header; plain 8-bit samples for anything else or damaged."""
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png(data)
        if data[:4] in (b"II*\0", b"MM\0*"):
            return _tiff(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data)
        if re.match(rb"P[2356]\s", data) and (found := _PNM.match(data)) is not None:
            most = int(found[1]).bit_length()  # 16 is what programs write that do not know
            return Samples(16, most if most < 16 else None) if most > 8 else Samples()
        if data[4:8] == b"jP  " and (place := data.find(b"ihdr", 0, 4096)) > 0:
            bits = (data[place + 14] & 0x7F) + 1
            return Samples(16, bits if bits < 16 else None) if 8 < bits <= 16 else Samples()
    except (struct.error, IndexError, ValueError):
        pass
    return Samples()


_PNM = re.compile(rb"P[2356](?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+(\d{1,5})\s")
_MOST_PAGES = 1 << 16


def _png(data: bytes) -> Samples:
    depth, colour = data[24], data[25]
    alpha, real, pages, position = colour in (4, 6), None, 1, 8
    while (kind := data[position + 4 : position + 8]) not in (b"IDAT", b"IEND", b""):
        if kind == b"sBIT":
            real = max(data[position + 8 : position + 8 + (3 if colour in (2, 6) else 1)])
        alpha |= kind == b"tRNS"
        pages = struct.unpack_from(">I", data, position + 8)[0] if kind == b"acTL" else pages
        position += 12 + struct.unpack_from(">I", data, position)[0]
    return Samples(16 if depth == 16 else 8, real if depth == 16 else None, alpha, pages)


def _webp(data: bytes) -> Samples:
    if data[12:16] == b"VP8L":
        return Samples(alpha=bool(struct.unpack_from("<I", data, 21)[0] >> 28 & 1))
    if data[12:16] != b"VP8X":
        return Samples()
    position, pages = 12, 0
    while position + 8 <= len(data):
        pages += data[position : position + 4] == b"ANMF"
        position += 8 + (size := struct.unpack_from("<I", data, position + 4)[0]) + size % 2
    return Samples(alpha=bool(data[20] & 0x10), pages=max(1, pages))


def _tiff(data: bytes) -> Samples:
    """The first page's samples; 10, 12 and 14 bits in a row come out of the decoder at the upper end of 16."""
    order = "<" if data.startswith(b"II") else ">"
    start, pages, first = struct.unpack_from(f"{order}I", data, 4)[0], 0, dict[int, int]()
    while 0 < start < len(data) and pages < _MOST_PAGES:
        count = struct.unpack_from(f"{order}H", data, start)[0]
        for entry in range(start + 2, start + 2 + 12 * count, 12) if not pages else ():
            tag, kind, length, value = struct.unpack_from(f"{order}HHII", data, entry)
            if kind == 3:  # 16-bit numbers, in place where they are one or two
                value = struct.unpack_from(f"{order}H", data, entry + 8 if length < 3 else value)[0]
            first[tag] = value
        pages += 1
        start = struct.unpack_from(f"{order}I", data, start + 2 + 12 * count)[0]
    bits, form = first.get(258, 1), first.get(339, 1)
    if form == 3:
        return Samples(
            refused=f"its samples are float of {bits} bits, whose range nobody states: convert it to 8 or 16"
        )
    if bits > 16:
        return Samples(refused=f"its samples have {bits} bits: convert it to 8 or 16")
    real = first[281].bit_length() if 281 in first and 8 < first[281].bit_length() < 16 else None
    # Grey or colour with a channel more, unless that is said to be no alpha.
    alpha = (first.get(262), first.get(277)) in ((1, 2), (2, 4)) and first.get(338) != 0
    return Samples(16 if bits > 8 else 8, 16 if 8 < bits < 16 else real, alpha, max(1, pages))
