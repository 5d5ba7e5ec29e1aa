"""What an image's samples are: their bits, transparency, pages."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from kanoclip.runtime.sources.files.headers.parts import PNG, chunks, directories, is_tiff, webp_chunks


@dataclass(frozen=True, slots=True)
class Samples:
    """What an image's samples are.

    Attributes:
        bits: Bits of each in the file, or what the decoder makes of them.
        real_bits: Bits that are used, where the file states it.
        most: What stands for white, where the file states one that is no whole number of bits.
        inverted: Whether white is 0, and the decoder leaves that as it is.
        alpha: Whether there is transparency.
        pages: Pages or frames of an animation.
        refused: Why it cannot be scored; empty if it can.
    """

    bits: int = 8
    real_bits: int | None = None
    most: int | None = None
    inverted: bool = False
    alpha: bool = False
    pages: int = 1
    refused: str = ""


def samples_of(data: bytes) -> Samples:
    """Reads an image file's header; plain 8-bit samples for what states none of this, or is damaged."""
    try:
        if data.startswith(PNG):
            return _png(data)
        if is_tiff(data):
            return _tiff(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data)
        if re.match(rb"P[2356]\s", data) and (found := _PNM.match(data[:4096])) is not None:
            return _pnm(data, found)
        if data[:4] == b"GIF8":
            return _gif(data)
        if data[4:8] == b"jP  " and (place := data.find(b"ihdr", 0, 4096)) > 0:
            bits, alpha = (data[place + 14] & 0x7F) + 1, data[place + 13] in (2, 4)
            deep = 8 < bits <= 16
            return Samples(16 if deep else 8, bits if deep and bits < 16 else None, alpha=alpha)
        if data.startswith(b"BM"):
            size, bits, form = (*struct.unpack_from("<I", data, 14), *struct.unpack_from("<HI", data, 28))
            masked = size >= 56 and bits == 32 and form in (3, 6)  # else the fourth byte means nothing
            return Samples(alpha=masked and struct.unpack_from("<I", data, 66)[0] != 0)
    except (struct.error, IndexError, ValueError, OverflowError):
        pass
    return Samples()


_BLANK = rb"(?:\s|#[^\n]*\n)+"
_PNM = re.compile(rb"P[2356]" + _BLANK + rb"(\d{1,9})" + _BLANK + rb"(\d{1,9})" + _BLANK + rb"(\d{1,5})\s")
_TIFF_OF_INTS, _TIFF_OF_FLOATS = 2, 3
_WHITE_IS_ZERO = 0


def _pnm(data: bytes, head: re.Match[bytes]) -> Samples:
    width, height, most = map(int, head.groups())
    bits, raw, pages = most.bit_length(), data[1:2] in b"56", 1
    if raw:  # several may follow each other, alike or not
        size = width * height * (3 if data[1:2] == b"6" else 1) * (2 if bits > 8 else 1)
        pages += data[head.end() + size : head.end() + size + 1] == b"P"
    if bits > 8:  # 65535 is what programs write that do not know
        whole = most == (1 << bits) - 1
        return Samples(16, bits if whole and bits < 16 else None, None if whole else most, pages=pages)
    return Samples(most=most if raw and 0 < most < 255 else None, pages=pages)  # of text, OpenCV minds it


def _gif(data: bytes) -> Samples:
    position, pages, alpha = 13 + _colours_of_gif(data[10]), 0, False
    while data[position] in b"\x21\x2c":
        if data[position] == 0x2C:
            pages += 1
            position += 11 + _colours_of_gif(data[position + 9])
        else:
            alpha |= data[position + 1] == 0xF9 and bool(data[position + 3] & 1)
            position += 2
        while size := data[position]:
            position += 1 + size
        position += 1
    return Samples(alpha=alpha, pages=max(1, pages))


def _colours_of_gif(flags: int) -> int:
    """Bytes of a table of colours."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


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
    return Samples(16 if depth == 16 else 8, real if depth == 16 else None, alpha=alpha, pages=pages)


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
    if first.get(339, 1) == _TIFF_OF_INTS:
        return Samples(refused="its samples have a sign, and nobody states which is black: convert it to 8 or 16 bits")
    if bits > 16:
        return Samples(refused=f"its samples have {bits} bits: convert it to 8 or 16")
    real = first[281].bit_length() if 281 in first and 8 < first[281].bit_length() < 16 else None
    # Grey or colour with a channel more, unless that is said to be no alpha.
    alpha = (first.get(262), first.get(277)) in ((1, 2), (2, 4)) and first.get(338) != 0
    inverted = bits > 8 and first.get(262) == _WHITE_IS_ZERO
    return Samples(
        16 if bits > 8 else 8, 16 if 8 < bits < 16 else real, inverted=inverted, alpha=alpha, pages=max(1, pages)
    )
