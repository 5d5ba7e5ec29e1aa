"""A TIFF file's directories, of 32 and of 64 bits."""

from __future__ import annotations

import struct

_MOST_PAGES = 1 << 16
_FORMS = {1: "B", 3: "H", 4: "I", 16: "Q"}
"""TIFF's types of whole numbers."""


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
