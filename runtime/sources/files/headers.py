"""An image's size from the first bytes of its file, which is some hundred times faster than decoding it."""

from __future__ import annotations

import struct
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
