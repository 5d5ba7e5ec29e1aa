"""Which way is up: EXIF's orientation in JPEG, PNG and WebP files."""

from __future__ import annotations

import struct

from kanoclip.runtime.sources.files.headers.parts import JPEG, PNG, chunks, is_webp, segments, webp_chunks


def orientation_of(data: bytes) -> int:
    """EXIF's orientation of a JPEG, PNG or WebP file, 1 to 8; 1 where there is none that can be read."""
    try:
        if data.startswith(JPEG):
            return orientation_of_jpeg(data)
        if data.startswith(PNG):
            return orientation_of_png(data)
        if is_webp(data):
            return orientation_of_webp(data) or 1
    except (struct.error, IndexError, OverflowError):
        pass
    return 1


def orientation_of_jpeg(data: bytes) -> int:
    """A JPEG's, 1 to 8; 1 where it is not given.

    Raises:
        struct.error: It is cut off.
        IndexError: It is cut off.
    """
    for marker, start, end in segments(data):
        if marker == 0xE1 and data[start : start + 6] == b"Exif\0\0":
            return orientation_in(data[start + 6 : end])
    return 1


def orientation_of_png(data: bytes) -> int:
    """A PNG's, 1 to 8; 1 where it is not given.

    Raises:
        struct.error: It is cut off.
    """
    if b"eXIf" in data:  # it may also come after the image
        for kind, start, end in chunks(data):
            if kind == b"eXIf":
                return orientation_in(data[start:end])
    return 1


def orientation_of_webp(data: bytes) -> int | None:
    """A WebP file's, 1 to 8; None where there is no EXIF block, such as in the beginning of a file alone.

    Raises:
        struct.error: It is cut off.
    """
    for kind, start, end in webp_chunks(data):
        if kind == b"EXIF":
            exif = data[start:end]
            return orientation_in(exif.removeprefix(b"Exif\0\0"))
    return None


def orientation_in(exif: bytes) -> int:
    """The orientation in an EXIF block, 1 to 8; 1 where it is not given."""
    order = "<" if exif.startswith(b"II") else ">"
    try:
        start = struct.unpack_from(f"{order}I", exif, 4)[0]
        for entry in range(struct.unpack_from(f"{order}H", exif, start)[0]):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", exif, start + 2 + 12 * entry)
            if tag == 0x0112:
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
