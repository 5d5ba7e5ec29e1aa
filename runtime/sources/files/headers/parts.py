"""What image files are made of: segments of JPEG, chunks of PNG and WebP, directories of TIFF."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from itertools import takewhile

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
MOST_PARTS = 1 << 16
"""Segments or chunks that are looked at: files of nothing but tiny ones would take minutes."""
_PADDING = re.compile(rb"\xff*")
_MOST_PAGES = 1 << 16
_FORMS = {1: "B", 3: "H", 4: "I", 16: "Q"}
"""TIFF's types of whole numbers."""


def segments(jpeg: bytes) -> Iterator[tuple[int, int, int]]:
    """A JPEG's segments before its data: marker, place of the content, place after it.

    Raises:
        struct.error: It is cut off.
        IndexError: It is cut off.
    """
    position = 2
    for _ in range(MOST_PARTS):
        if jpeg[position] != 0xFF:
            return
        if jpeg[position + 1] == 0xFF and (padding := _PADDING.match(jpeg, position)) is not None:
            position = padding.end() - 1
        marker = jpeg[position + 1]
        if marker in (0xDA, 0xD9):
            return
        end = position + 2 + int(struct.unpack_from(">H", jpeg, position + 2)[0])
        yield marker, position + 4, end
        position = end


def chunks(png: bytes) -> Iterator[tuple[bytes, int, int]]:
    """A PNG's chunks: kind, place of the content, place after it."""
    position = len(PNG)
    for _ in range(MOST_PARTS):
        kind = png[position + 4 : position + 8]
        if len(kind) < 4:
            return
        end = position + 8 + int(struct.unpack_from(">I", png, position)[0])
        yield kind, position + 8, end
        position = end + 4


def is_whole_png(png: bytes) -> bool:
    """Whether each chunk of a PNG up to its end mark lies inside the file: OpenCV takes what memory one states."""
    return any(kind == b"IEND" for kind, _, end in takewhile(lambda one: one[2] + 4 <= len(png), chunks(png)))


def webp_chunks(webp: bytes) -> Iterator[tuple[bytes, int, int]]:
    """A WebP file's chunks: kind, place of the content, place after it."""
    position = 12
    for _ in range(MOST_PARTS):
        if position + 8 > len(webp):
            return
        size = int(struct.unpack_from("<I", webp, position + 4)[0])
        yield webp[position : position + 4], position + 8, position + 8 + size
        position += 8 + size + size % 2


def is_webp(data: bytes) -> bool:
    """Whether a file begins as WebP does."""
    return data.startswith(b"RIFF") and data[8:12] == b"WEBP"


def is_tiff(data: bytes) -> bool:
    """Whether a file begins as TIFF or BigTIFF does."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def directories(data: bytes) -> tuple[dict[int, int], int]:
    """The first page's tags, of each the first number, and how many pages there are.

    Raises:
        struct.error: It is cut off or damaged.
    """
    order, big = "<" if data.startswith(b"II") else ">", data[2:4] in (b"+\0", b"\0+")
    form, width, head = ("Q", 20, 8) if big else ("I", 12, 2)
    start, pages, first = struct.unpack_from(order + form, data, 8 if big else 4)[0], 0, dict[int, int]()
    while 0 < start < len(data) and pages < _MOST_PAGES:
        count = struct.unpack_from(order + ("Q" if big else "H"), data, start)[0]
        end = start + head + width * count
        if end > len(data):
            raise struct.error("a directory ends after the file")
        if not pages:
            for entry in range(start + head, end, width):
                _take(data, entry, order, form, first)
        pages += 1
        start = struct.unpack_from(order + form, data, end)[0]
    return first, pages


def _take(data: bytes, entry: int, order: str, form: str, tags: dict[int, int]) -> None:
    tag, kind, count = struct.unpack_from(f"{order}HH{form}", data, entry)
    number = _FORMS.get(kind)
    if number is None or not count:
        return
    here = entry + 4 + struct.calcsize(form)
    fits = count * struct.calcsize(number) <= struct.calcsize(form)
    place = here if fits else struct.unpack_from(order + form, data, here)[0]
    try:
        tags[tag] = struct.unpack_from(order + number, data, place)[0]
    except (struct.error, OverflowError):  # numbers that lie after the end; others may be there
        return
