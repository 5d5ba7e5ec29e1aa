"""How a frame is cut into tiles."""

from __future__ import annotations

from dataclasses import dataclass

MOST_TILES = 16


@dataclass(frozen=True)
class TileGrid:
    """How a frame is cut into tiles, each of which the graph sees at the model's size.

    Attributes:
        rows: Tiles from top to bottom.
        columns: Tiles from left to right.
        overlap: Share of a tile's side that it has in common with its neighbour, from 0 to 0.5.
    """

    rows: int
    columns: int
    overlap: float

    @property
    def count(self) -> int:
        """How many tiles a frame has."""
        return self.rows * self.columns

    @property
    def title(self) -> str:
        """As the command line has it: rows, then columns, such as `3x1`."""
        return f"{self.rows}x{self.columns}"

    def starts(self, size: tuple[int, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Where tiles of `size` begin in the stitched map: the first rows, and the first columns, in pixels."""
        height, width = size
        step = 1 - self.overlap
        # Halves go upwards: to the next even number, three tiles would meet where each shares half with its neighbour.
        return (
            tuple(int(number * step * height + 0.5) for number in range(self.rows)),
            tuple(int(number * step * width + 0.5) for number in range(self.columns)),
        )

    def canvas(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) in pixels of the map that maps of `size`, one for each tile, are stitched to."""
        tops, lefts = self.starts(size)
        return tops[-1] + size[0], lefts[-1] + size[1]
