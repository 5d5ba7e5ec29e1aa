"""What an image's samples are: their bits, transparency, pages."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from kanoclip.runtime.sources.files.headers import PNG, chunks, directories, is_tiff, webp_chunks


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
        if data.startswith(PNG):
            return _png(data)
        if is_tiff(data):
            return _tiff(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data)
        if re.match(rb"P[2356]\s", data) and (found := _PNM.match(data[:4096])) is not None:
            most = int(found[1]).bit_length()  # 16 is what programs write that do not know
            return Samples(16, most if most < 16 else None) if most > 8 else Samples()
        if data[4:8] == b"jP  " and (place := data.find(b"ihdr", 0, 4096)) > 0:
            bits = (data[place + 14] & 0x7F) + 1
            return Samples(16, bits if bits < 16 else None) if 8 < bits <= 16 else Samples()
    except (struct.error, IndexError, ValueError, OverflowError):
        pass
    return Samples()


_BLANK = rb"(?:\s|#[^\n]*\n)+"
_PNM = re.compile(rb"P[2356]" + _BLANK + rb"\d{1,9}" + _BLANK + rb"\d{1,9}" + _BLANK + rb"(\d{1,5})\s")
_TIFF_OF_FLOATS = 3


def _png(data: bytes) -> Samples:
    depth, colour = data[24], data[25]
    alpha, real, pages = colour in (4, 6), None, 1
    for kind, start, _ in chunks(data):
        if kind in (b"IDAT", b"IEND"):
            break
        if kind == b"sBIT":
            real = max(data[start : start + (3 if colour in (2, 6) else 1)])
        alpha |= kind == b"tRNS"
        pages = struct.unpack_from(">I", data, start)[0] if kind == b"acTL" else pages
    return Samples(16 if depth == 16 else 8, real if depth == 16 else None, alpha, pages)


def _webp(data: bytes) -> Samples:
    if data[12:16] == b"VP8L":
        return Samples(alpha=bool(struct.unpack_from("<I", data, 21)[0] >> 28 & 1))
    if data[12:16] != b"VP8X":
        return Samples()
    pages = sum(kind == b"ANMF" for kind, _, _ in webp_chunks(data))
    return Samples(alpha=bool(data[20] & 0x10), pages=max(1, pages))


def _tiff(data: bytes) -> Samples:
    """The first page's samples; 10, 12 and 14 bits in a row come out of the decoder at the upper end of 16."""
    first, pages = directories(data)
    bits = first.get(258, 1)
    if first.get(339, 1) == _TIFF_OF_FLOATS:
        return Samples(
            refused=f"its samples are float of {bits} bits, whose range nobody states: convert it to 8 or 16"
        )
    if bits > 16:
        return Samples(refused=f"its samples have {bits} bits: convert it to 8 or 16")
    real = first[281].bit_length() if 281 in first and 8 < first[281].bit_length() < 16 else None
    # Grey or colour with a channel more, unless that is said to be no alpha.
    alpha = (first.get(262), first.get(277)) in ((1, 2), (2, 4)) and first.get(338) != 0
    return Samples(16 if bits > 8 else 8, 16 if 8 < bits < 16 else real, alpha, max(1, pages))
