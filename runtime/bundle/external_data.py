"""Which files an ONNX graph takes its weights from, without onnx: the bundle's manifest must list each of them."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from kanoclip.runtime.bundle.wire import WITH_LENGTH, Bytes, fields
from kanoclip.runtime.errors import BundleError
from kanoclip.runtime.system.files.regular import open_regular

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


def _locations(data: Bytes, start: int, end: int, kind: str, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        raise ValueError("nested too deep")
    for field in fields(data, start, end):
        if field.form != WITH_LENGTH:
            continue
        inner = _FIELDS[kind].get(field.number)
        if inner == _ENTRIES:
            parts = fields(data, field.first, field.end)
            pair = {part.number: bytes(data[part.first : part.end]) for part in parts if part.form == WITH_LENGTH}
            if pair.get(1) == b"location":
                yield pair.get(2, b"").decode()
        elif inner is not None:
            yield from _locations(data, field.first, field.end, inner, depth + 1)
