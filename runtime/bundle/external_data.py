"""Which files an ONNX graph takes its weights from, without onnx: the bundle's manifest must list each of them."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

from kanoclip.runtime.errors import BundleError
from kanoclip.runtime.system.files.regular import open_regular

_Bytes: TypeAlias = "bytes | mmap.mmap"

_DEEPEST = 64
_TENSOR, _ENTRIES = "tensor", "entries"
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: _TENSOR, 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: _TENSOR, 6: "graph", 10: _TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {13: _ENTRIES},
}
"""Of onnx.proto: in which message which fields lead to tensors. All others are hopped over by their lengths."""


def external_files(path: Path) -> set[str]:
    """The files that a graph's tensors lie in, as the graph names them.

    Raises:
        BundleError: It is no ONNX graph.
        OSError: It cannot be read.
    """
    with closing(open_regular(path)) as file:
        if not path.stat().st_size:
            raise BundleError(f"{path.name} is empty: copy or export the bundle again")
        with closing(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) as data:
            if data.find(b"location") < 0:  # the key that a tensor outside has; most graphs have none
                return set()
            try:
                return set(_locations(data, 0, len(data), "model", 0))
            except (IndexError, ValueError, UnicodeDecodeError):
                raise BundleError(f"{path.name} is no ONNX graph: copy or export the bundle again") from None


def _locations(data: _Bytes, start: int, end: int, kind: str, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        raise ValueError("nested too deep")
    for number, first, last in _fields(data, start, end):
        inner = _FIELDS[kind].get(number)
        if inner == _ENTRIES:
            pair = {number: bytes(data[first:last]) for number, first, last in _fields(data, first, last)}
            if pair.get(1) == b"location":
                yield pair.get(2, b"").decode()
        elif inner is not None:
            yield from _locations(data, first, last, inner, depth + 1)


def _fields(data: _Bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields of a message that have a length: number, place, place after it."""
    while start < end:
        tag, start = _varint(data, start)
        form = tag & 7
        if form == 0:
            _, start = _varint(data, start)
        elif form == 1:
            start += 8
        elif form == 5:
            start += 4
        elif form == 2:
            length, start = _varint(data, start)
            if start + length > end:
                raise ValueError("longer than what it lies in")
            yield tag >> 3, start, start + length
            start += length
        else:
            raise ValueError("a form that ONNX does not have")


def _varint(data: _Bytes, start: int) -> tuple[int, int]:
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
