"""Protobuf's wire format, as much of it as is needed to read an ONNX file without onnx."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

Bytes: TypeAlias = "bytes | mmap.mmap"

WITH_LENGTH = 2
"""The form of texts, bytes, messages inside of a message, and packed numbers."""


class Field(NamedTuple):
    """A field of a message, by its places in the bytes.

    Attributes:
        number: As the schema numbers it.
        form: How it is written; WITH_LENGTH for what has a content of its own.
        start: Of the field.
        first: Of its content.
        end: After both.
    """

    number: int
    form: int
    start: int
    first: int
    end: int


def fields(data: Bytes, start: int, end: int) -> Iterator[Field]:
    """The fields of a message, in their order.

    Raises:
        ValueError: It is no message.
        IndexError: It ends in the middle of a field.
    """
    while start < end:
        tag, first = varint(data, start)
        number, form = tag >> 3, tag & 7
        if form == 0:
            _, after = varint(data, first)
        elif form == 1:
            after = first + 8
        elif form == 5:
            after = first + 4
        elif form == WITH_LENGTH:
            length, first = varint(data, first)
            after = first + length
        else:
            raise ValueError("a form that ONNX does not have")
        if after > end:
            raise ValueError("longer than what it lies in")
        yield Field(number, form, start, first, after)
        start = after


def varint(data: Bytes, start: int) -> tuple[int, int]:
    """A number and the place after it.

    Raises:
        ValueError: It has no end within 64 bits.
        IndexError: The bytes end before it does.
    """
    value = shift = 0
    while True:
        byte = data[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start
        shift += 7
        if shift > 63:
            raise ValueError("a number without an end")


def message(number: int, content: bytes) -> bytes:
    """A field with a length.

    Examples:
        >>> list(message(7, b"ab"))
        [58, 2, 97, 98]
    """
    return _written(number << 3 | WITH_LENGTH) + _written(len(content)) + content


def _written(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*found, value))
