"""Inputs and outputs of a bundle's graph."""

from __future__ import annotations

from dataclasses import dataclass

BATCH = "batch"
"""Stands for a dynamic batch axis in a tensor's shape."""
DESCRIPTOR = "descriptor"
"""Name of the output that a reference memory is made of."""
DESCRIPTOR_CHANNELS = 384
"""Most channels of a descriptor: a memory's size and the time to search it grow with them."""
ROWS = "rows"
"""Stands for the axis of a memory's rows in a tensor's shape: from one to the manifest's `memory.rows`."""
MEMORY_INPUTS = ("memory", "memory_bias", "memory_centre", "memory_fusion")
"""Names of the inputs that hold a reference memory, the same for every frame of a batch."""
FUSION_NUMBERS = 8
"""Length of the input `memory_fusion`."""


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of the graph; BATCH stands for a dynamic batch axis, ROWS for a memory's rows."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class DescriptorInfo:
    """The graph's third output, `descriptor` float32 [B, rows * columns, channels]: a unit vector for each cell.

    Attributes:
        grid: (rows, columns) of the cells over the frame, row by row from the top left.
        channels: Length of each vector, from 1 to DESCRIPTOR_CHANNELS.
        sha256: Digest of all that decides the vectors. A reference memory fits the bundles that have its digest, and no
            others.
    """

    grid: tuple[int, int]
    channels: int
    sha256: str

    @property
    def cells(self) -> int:
        """How many vectors a frame has."""
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class MemoryInfo:
    """What the graph takes as a reference memory, in the inputs MEMORY_INPUTS.

    Attributes:
        rows: Most rows that a memory may have.
    """

    rows: int


def graph_signature(
    size: tuple[int, int],
    classes: int,
    batch: int | str,
    frame: tuple[int, int],
    descriptor: DescriptorInfo | None = None,
    *,
    memory: bool = False,
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a bundle's graph.

    Args:
        size: (height, width) of the model in pixels.
        classes: How many are baked; several need an index.
        batch: The batch axis: a fixed size, or BATCH.
        frame: (height, width) of the frames in pixels; other than `size` where the graph resizes.
        descriptor: What the third output is; None where there is none.
        memory: Whether the graph takes a reference memory of such descriptors.
    """
    height, width = size
    frames = TensorSpec("frame", "uint8", (batch, *frame, 3))
    index = (TensorSpec("class_index", "int64", (batch,)),) if classes > 1 else ()
    outputs = [TensorSpec("map", "float32", (batch, height, width)), TensorSpec("score", "float32", (batch,))]
    if descriptor is not None:
        outputs.append(TensorSpec(DESCRIPTOR, "float32", (batch, descriptor.cells, descriptor.channels)))
    held: tuple[TensorSpec, ...] = ()
    if memory and descriptor is not None:
        shapes: tuple[tuple[int | str, ...], ...] = (
            (ROWS, descriptor.channels),
            (ROWS,),
            (descriptor.channels,),
            (FUSION_NUMBERS,),
        )
        held = tuple(TensorSpec(name, "float32", shape) for name, shape in zip(MEMORY_INPUTS, shapes, strict=True))
    return (frames, *index, *held), tuple(outputs)
