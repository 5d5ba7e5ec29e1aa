"""What stays as it is in a quantised graph: a stem's first stages, then the first blocks, as few as drift allows.

What is lost first is lost for all that follows. Of EfficientNet-Lite1's stages the first two make most of the drift:
their weights are few, their activations many. On nano, leaving alone the blocks that drift most one by one chose the
same blocks as leaving alone the first ones, and takes a run for every block (docs/design-notes.md).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from kanoclip.export.quantisation.calibration import plain_session
from kanoclip.runtime.bundle.manifest.signature import DESCRIPTOR
from kanoclip.runtime.bundle.tolerances import BOUNDS
from kanoclip.runtime.types import Image

TARGET = BOUNDS["fp16"].map
"""Largest drift of the map from the plain graph on good images: what the gate allows fp16. Images with anomalies
drift up to three times as far, which keeps them inside the quantised graphs' own bound."""
DESCRIPTOR_WEIGHT = 2.0
"""A descriptor's drift, 1 - cosine, counts so many times: within TARGET it is at most 0.01 then, small beside the
distances that a reference memory compares."""
IMAGES = 4
"""Of the calibration's, spread evenly: ViT-L takes seconds a run, and up to five graphs are tried."""


@dataclass(frozen=True)
class Layers:
    """The quantised part of a graph. Its groups are left alone in this order: a stem's stages, the blocks.

    Attributes:
        numbers: The quantised layers' nodes with the number of each one's group.
        readers: Other nodes that read what was quantised, with the group that they are left alone with.
        stages: How many of the groups are a stem's stages.
    """

    numbers: Mapping[str, int]
    readers: Mapping[str, int] = field(default_factory=dict)
    stages: int = 0

    @property
    def blocks(self) -> int:
        """How many transformer blocks there are."""
        return max(self.numbers.values()) - self.stages

    def first(self, groups: int) -> set[str]:
        """The nodes of so many groups, the first ones."""
        return {name for part in (self.numbers, self.readers) for name, group in part.items() if group < groups}


@dataclass(frozen=True)
class Choice:
    """What was chosen, and on what ground; written into the manifest.

    Attributes:
        blocks_unquantised: How many blocks, the first ones, were left alone.
        blocks: How many there are.
        layers: How many MatMuls, Gemms and convolutions are quantised.
        map_drift: Largest absolute difference of the map from the plain graph's.
        target: What it was to stay within; it does not where even many blocks left alone are not enough.
        pictures: How many of the calibration's it was measured on.
        stages_unquantised: How many stages of a stem, the first ones, were left alone.
        stages: How many there are; 0 without a stem.
        descriptor_drift: Largest 1 - cosine of a descriptor to the plain graph's; None where there are none.
    """

    blocks_unquantised: int
    blocks: int
    layers: int
    map_drift: float
    target: float
    pictures: int
    stages_unquantised: int = 0
    stages: int = 0
    descriptor_drift: float | None = None

    def as_json(self) -> dict[str, Any]:
        """For the manifest and `--json`."""
        return asdict(self)


def fewest_alone(
    source: Path,
    plain: onnx.ModelProto,
    marked: onnx.ModelProto,
    layers: Layers,
    frames: Sequence[Image],
    batch: int,
    report: Callable[[float], None],
) -> Choice:
    """Measures the drift with more and fewer stages and blocks left alone, until it is just within TARGET.

    Args:
        source: The plain graph.
        plain: The same, loaded.
        marked: The graph with every layer quantised.
        layers: What is quantised in it.
        frames: uint8 [h, w, 3], BGR, at the graph's size, at least one.
        batch: Length of the graph's static batch axis; 1 for a dynamic one.
        report: Called with the share that is done.
    """
    count = min(IMAGES, len(frames))
    seen = [frames[number * len(frames) // count] for number in range(count)]
    described = any(value.name == DESCRIPTOR for value in plain.graph.output)
    names = ["map", DESCRIPTOR] if described else ["map"]
    wanted = _outputs(str(source), seen, batch, names)
    most = max(layers.stages + layers.blocks - 1, 0)
    tries = 0

    @cache
    def drifts(alone: int) -> tuple[float, float | None]:
        nonlocal tries
        found = _outputs(leave_alone(marked, plain, layers.first(alone)).SerializeToString(), seen, batch, names)
        tries += 1
        report(tries / (most + 1).bit_length())
        pairs = list(zip(found, wanted, strict=True))
        of_map = float(np.max([np.abs(a[0] - b[0]).max() for a, b in pairs]))
        if not described:
            return of_map, None
        # Both are L2-normalised.
        return of_map, float(np.max([1 - (a[1] * b[1]).sum(axis=-1) for a, b in pairs]))

    def drift(alone: int) -> float:
        of_map, of_descriptors = drifts(alone)
        return max(of_map, DESCRIPTOR_WEIGHT * (of_descriptors or 0.0))

    alone = smallest_within(drift, most, TARGET)
    of_map, of_descriptors = drifts(alone)
    return Choice(
        blocks_unquantised=max(alone - layers.stages, 0),
        blocks=layers.blocks,
        layers=sum(group >= alone for group in layers.numbers.values()),
        map_drift=of_map,
        target=TARGET,
        pictures=count,
        stages_unquantised=min(alone, layers.stages),
        stages=layers.stages,
        descriptor_drift=of_descriptors,
    )


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


def _outputs(
    model: str | bytes, frames: Sequence[Image], batch: int, names: Sequence[str]
) -> list[list[npt.NDArray[np.floating[Any]]]]:
    run = plain_session(model, batch)
    return [run(frame, names) for frame in frames]
