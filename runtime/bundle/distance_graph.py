"""The part of a bundle's graph that gives the distances to a reference memory, as a graph of its own, without onnx.

ONNX Runtime computes everything that is in its file, whatever outputs it is asked for. Where references alone score a
frame, the zero-shot map has no weight, and it is half of nano's work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path

from kanoclip.runtime.bundle.external_data import external_files
from kanoclip.runtime.bundle.wire import WITH_LENGTH, Field, fields, message
from kanoclip.runtime.errors import BundleError

_GRAPH = 7
"""Of a model, in onnx.proto."""
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO, _ANNOTATION = 1, 5, 11, 12, 13, 14
"""Of a graph."""
_READ, _GIVEN, _NODE_NAME = 1, 2, 3
"""Of a node: the names of what it reads and of what it gives, and its own."""
_TENSOR_NAME, _VALUE_NAME = 8, 1
_SMOOTHING = "memory.smoothing/"
"""How the names of the nodes begin that upsample and smooth the distances: the last one gives their map."""


def distance_graph(path: Path) -> bytes | None:
    """Cuts everything from a graph that the distances to a reference memory do not depend on.

    Args:
        path: The bundle's ONNX file.

    Returns:
        An ONNX model whose one output is the smoothed distances, float32 [B, H, W] in [0, 2]; its inputs are those of
        the whole graph that it needs. None where the graph takes no memory, or where the weights lie in another file:
        there are so many that they should not be held twice.

    Raises:
        BundleError: It is no ONNX graph.
        OSError: It cannot be read.
    """
    if external_files(path):
        return None
    data = path.read_bytes()
    try:
        parts = list(fields(data, 0, len(data)))
        graph = next(part for part in parts if part.number == _GRAPH)
        cut = _cut(data, list(fields(data, graph.first, graph.end)))
    except (IndexError, ValueError, UnicodeDecodeError, StopIteration):
        raise BundleError(f"{path.name} is no ONNX graph: copy or export the bundle again") from None
    if cut is None:
        return None
    return b"".join(message(_GRAPH, cut) if part is graph else data[part.start : part.end] for part in parts)


def _cut(data: bytes, inside: list[Field]) -> bytes | None:
    """A graph's content without what the distances have no need of; None where it computes none."""
    nodes = [one for one in inside if one.number == _NODE]
    smoothing = [one for one in nodes if _text(data, one, _NODE_NAME).startswith(_SMOOTHING)]
    if not smoothing:
        return None
    distances = _text(data, smoothing[-1], _GIVEN)
    needed = _needed(data, nodes, distances)
    # The map, which comes first, is of the same type and shape.
    alike = next(one for one in inside if one.number == _OUTPUT)
    shape = b"".join(
        data[one.start : one.end] for one in fields(data, alike.first, alike.end) if one.number != _VALUE_NAME
    )
    output = message(_OUTPUT, message(_VALUE_NAME, distances.encode()) + shape)

    def stays(field: Field) -> bool:
        if field.number == _NODE:
            return not needed.isdisjoint(_texts(data, field, _GIVEN))
        if field.number == _INITIALIZER:
            return _text(data, field, _TENSOR_NAME) in needed
        if field.number == _INPUT:
            return _text(data, field, _VALUE_NAME) in needed
        return field.number not in (_OUTPUT, _VALUE_INFO, _ANNOTATION)

    return b"".join(data[field.start : field.end] for field in inside if stays(field)) + output


def _needed(data: bytes, nodes: list[Field], wanted: str) -> set[str]:
    """The names of all values that one depends on, with its own."""
    maker = {name: one for one in nodes for name in _texts(data, one, _GIVEN)}
    found, waiting = {wanted}, deque([wanted])
    while waiting:
        node = maker.get(waiting.popleft())
        fresh = set() if node is None else set(_texts(data, node, _READ)) - found
        found |= fresh
        waiting.extend(fresh)
    return found


def _text(data: bytes, field: Field, number: int) -> str:
    """The first text with a number in a message; empty where it has none."""
    return next(_texts(data, field, number), "")


def _texts(data: bytes, field: Field, number: int) -> Iterator[str]:
    """The texts with a number in a message."""
    for part in fields(data, field.first, field.end):
        if part.number == number and part.form == WITH_LENGTH:
            yield data[part.first : part.end].decode()
