"""Which blocks stay as they are in a quantised graph: the first ones, as few as the measured drift allows.

What is lost in the first blocks is lost for all stages. On nano, leaving alone the blocks that drift most one by one
chose the same blocks as leaving alone the first ones, and takes a run for every block (docs/design-notes.md).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from kanoclip.export.calibration import plain_session
from kanoclip.runtime.bounds import BOUNDS
from kanoclip.runtime.types import Image

TARGET = BOUNDS["fp16"].map
"""Largest drift of the map from the plain graph on good pictures: what the gate allows fp16. Pictures with anomalies
drift up to three times as far, which keeps them inside the quantised graphs' own bound."""
PICTURES = 4
"""Of the calibration's, spread evenly: ViT-L takes seconds a run, and up to five graphs are tried."""


@dataclass(frozen=True)
class Choice:
    """What was chosen, and on what ground; written into the manifest.

    Attributes:
        blocks_unquantised: How many blocks, the first ones, were left alone.
        blocks: How many there are.
        layers: How many MatMuls and Gemms are quantised.
        map_drift: Largest absolute difference of the map from the plain graph's.
        target: What it was to stay within; it does not where even many blocks left alone are not enough.
        pictures: How many of the calibration's it was measured on.
    """

    blocks_unquantised: int
    blocks: int
    layers: int
    map_drift: float
    target: float
    pictures: int

    def as_json(self) -> dict[str, Any]:
        """For the manifest and `--json`."""
        return asdict(self)


def fewest_alone(
    source: Path,
    plain: onnx.ModelProto,
    marked: onnx.ModelProto,
    layers: Mapping[str, int],
    frames: Sequence[Image],
    batch: int,
    report: Callable[[float], None],
) -> Choice:
    """Measures the drift with more and fewer blocks left alone, until it is just within TARGET.

    Args:
        source: The plain graph.
        plain: The same, loaded.
        marked: The graph with every layer quantised.
        layers: The quantised layers with the number of each one's block.
        frames: uint8 [h, w, 3], BGR, at the graph's size, at least one.
        batch: Length of the graph's static batch axis; 1 for a dynamic one.
        report: Told the share that is done.
    """
    count = min(PICTURES, len(frames))
    judged = [frames[number * len(frames) // count] for number in range(count)]
    wanted = _maps(str(source), judged, batch)
    blocks = max(layers.values())
    tries = 0

    @cache
    def drift(alone: int) -> float:
        nonlocal tries
        model = leave_alone(marked, plain, {name for name, block in layers.items() if block < alone})
        found = _maps(model.SerializeToString(), judged, batch)
        tries += 1
        report(tries / blocks.bit_length())
        return float(np.max([np.abs(a - b).max() for a, b in zip(found, wanted, strict=True)]))

    alone = smallest_within(drift, max(blocks - 1, 0), TARGET)
    quantised = sum(block >= alone for block in layers.values())
    return Choice(alone, blocks, quantised, drift(alone), TARGET, count)


def smallest_within(drift: Callable[[int], float], most: int, target: float) -> int:
    """The smallest number from 0 to `most` whose drift is within the target, by halving.

    Drift falls as the number grows, but for noise. Where none that was tried is within the target, it is the one of
    them with the least drift: the gate has the last word.
    """
    low, high = 0, most
    tried: dict[int, float] = {}
    while low <= high:
        middle = (low + high) // 2
        tried[middle] = drift(middle)
        if tried[middle] <= target:  # NaN is not
            high = middle - 1
        else:
            low = middle + 1
    return low if low in tried else min(tried, key=lambda number: tried[number])


def leave_alone(marked: onnx.ModelProto, plain: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """A copy of a quantised graph in which some layers read what they read before, without what nothing reads then.

    Args:
        marked: The quantised graph, its nodes in an order in which they can run.
        plain: The graph that it was made from.
        names: The layers' nodes.
    """
    before = {node.name: list(node.input) for node in plain.graph.node if node.name in names}
    copy = onnx.ModelProto()
    copy.CopyFrom(marked)
    graph = copy.graph
    for node in graph.node:
        if node.name in before:
            node.input[:] = before[node.name]
    read = {value.name for value in graph.output}
    live = []
    for node in reversed(graph.node):
        if read.intersection(node.output):
            read.update(node.input)
            live.append(node)
    del graph.node[:]
    graph.node.extend(reversed(live))
    tensors = {tensor.name: tensor for tensor in (*plain.graph.initializer, *marked.graph.initializer)}
    del graph.initializer[:]
    graph.initializer.extend(tensor for name, tensor in tensors.items() if name in read)
    return copy


def _maps(model: str | bytes, frames: Sequence[Image], batch: int) -> list[npt.NDArray[np.floating[Any]]]:
    run = plain_session(model, batch)
    return [run(frame, ["map"])[0] for frame in frames]
