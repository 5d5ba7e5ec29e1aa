"""Tiles: a frame cut into pieces that the graph sees at full size each, and their maps put together without seams.

A frame of 500x1240 pixels that is stretched to a square loses its hairline cracks. As tiles it is resized once, to the
size of the stitched map (the canvas), and the tiles are cut from that. So each pixel of a tile's map has its place in
the stitched map, whatever the frame's size, and no map is resized again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.bundle.manifest.tiles import MOST_TILES, TileGrid
from kanoclip.runtime.errors import FrameError, SettingsError
from kanoclip.runtime.types import FloatMap, Image, Images

OVERLAP = 0.15
"""Share of a tile's side by default: what lies on the edge of one tile is well inside of the other."""
MOST_OVERLAP = 0.5
"""With more, three tiles would meet at one place."""
WHOLE = TileGrid(1, 1, 0.0)
"""The frame as its only tile."""
_GRID = re.compile(r"(\d{1,4})x(\d{1,4})", re.ASCII)

Plane = TypeVar("Plane", bound=np.generic)


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels: its first row and column, and its size."""

    top: int
    left: int
    height: int
    width: int

    def of(self, plane: npt.NDArray[Plane]) -> npt.NDArray[Plane]:
        """That part of [H, W] or [H, W, channels], not copied."""
        return plane[self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True)
class Tiling:
    """How frames become tiles, and tiles' maps one map. Tiles are in row order wherever there are several.

    Examples:
        >>> tiling = Tiling(TileGrid(3, 1, 0.15), (256, 256))
        >>> tiling.canvas
        (691, 256)
        >>> tiling.boxes(1240, 500)[1]
        Box(top=391, left=0, height=460, width=500)
        >>> tiles = tiling.cut(np.zeros(tiling.canvas + (3,), np.uint8))
        >>> tiles.shape, tiling.stitch([np.ones((256, 256), np.float32)] * 3).shape
        ((3, 256, 256, 3), (691, 256))

    Attributes:
        grid: Rows, columns and overlap of the tiles.
        size: (height, width) in pixels of a tile as the graph takes it, and of its map.
    """

    grid: TileGrid
    size: tuple[int, int]

    @property
    def count(self) -> int:
        """How many tiles a frame has."""
        return self.grid.count

    @cached_property
    def canvas(self) -> tuple[int, int]:
        """(height, width) in pixels of the stitched map, and of the frame that tiles are cut from."""
        return self.grid.canvas(self.size)

    def boxes(self, height: int, width: int) -> tuple[Box, ...]:
        """Where the tiles lie in a frame, to the nearest pixel; in a frame of the canvas's size exactly.

        Args:
            height: Rows of the frame.
            width: Columns of the frame.

        Raises:
            FrameError: A tile would have less than a pixel.
        """
        self.check_frame(height, width)
        rows, columns = (
            [(_scaled(start, full, whole), _scaled(start + side, full, whole)) for start in starts]
            for starts, side, full, whole in zip(
                self.grid.starts(self.size), self.size, (height, width), self.canvas, strict=True
            )
        )
        return tuple(Box(top, left, bottom - top, right - left) for top, bottom in rows for left, right in columns)

    def check_frame(self, height: int, width: int) -> None:
        """Refuses a frame in which a tile would have less than a pixel.

        Raises:
            FrameError: It is too small.
        """
        if self.count == 1:
            return
        least = [-(-whole // side) for whole, side in zip(self.canvas, self.size, strict=True)]
        if height < least[0] or width < least[1]:
            raise FrameError(
                f"a frame of {width}x{height} pixels is too small for {self.grid.title} tiles: pass frames of at least "
                f"{least[1]}x{least[0]}, or export the bundle without --tiles"
            )

    def cut(self, frame: Image) -> Images:
        """Cuts a frame that has been resized to the canvas.

        Args:
            frame: uint8 [height, width, 3] of the canvas's size.

        Returns:
            uint8 [count, h, w, 3], contiguous, each tile of `size`. Of a single tile it is the frame, not copied.
        """
        if self.count == 1:
            return frame[None]
        return np.stack([box.of(frame) for box in self._places])

    def split(self, plane: npt.NDArray[Plane]) -> list[npt.NDArray[Plane]]:
        """Each tile's part of a map or mask of the canvas's size, [h, w], not copied."""
        if self.count == 1:
            return [plane]  # of another size than the frame where the graph resizes
        return [box.of(plane) for box in self._places]

    @cached_property
    def weights(self) -> FloatMap:
        """How much each tile counts at each of its pixels, float32 [count, h, w]; over the canvas they sum to 1.

        A tile counts in full where no other lies. Across an overlap its weight falls evenly to the edge, where the map
        is least certain, so there is no step from one tile to the next.
        """
        down, across = (
            _ramps(starts, side) for starts, side in zip(self.grid.starts(self.size), self.size, strict=True)
        )
        products = down[:, None, :, None] * across[None, :, None, :]
        return products.reshape(self.count, *self.size).astype(np.float32)

    def stitch(self, maps: Sequence[FloatMap]) -> FloatMap:
        """Puts the tiles' maps together.

        Args:
            maps: float32 [h, w] of each tile, in [0, 1].

        Returns:
            float32 of the canvas's size, in [0, 1]. Of a single tile it is that map, not copied.
        """
        if self.count == 1:
            return maps[0]
        stitched = np.zeros(self.canvas, np.float32)
        for box, weight, one in zip(self._places, self.weights, maps, strict=True):
            area = box.of(stitched)
            area += weight * one
        np.minimum(stitched, 1, out=stitched)  # rounded weights may sum to a bit more
        return stitched

    @cached_property
    def _places(self) -> tuple[Box, ...]:
        return self.boxes(*self.canvas)


def auto_grid(
    height: int, width: int, size: tuple[int, int] = (1, 1), overlap: float = OVERLAP, most: int = MOST_TILES
) -> TileGrid:
    """The tiles that suit a frame's aspect: those nearest to the model's own, along the longer side only.

    More tiles than that are worse (KolektorSDD: 95.0 / 95.2 as 3x1, 83.6 / 91.9 as 5x2), for each then shows too little
    of the part to tell what is usual there.

    Args:
        height: Rows of the frame.
        width: Columns of the frame.
        size: (height, width) of the model: no tile has fewer pixels along the side that is cut.
        overlap: Share of a tile's side that it has in common with its neighbour.
        most: Most tiles.

    Returns:
        The grid; 1x1, where the frame is best seen as a whole.

    Examples:
        >>> [auto_grid(*frame).title for frame in ((1240, 500), (500, 1240), (700, 700))]
        ['3x1', '1x3', '1x1']
    """
    stretched = math.log(height / width * size[1] / size[0])  # above 0: taller than the model's image
    side, least = (height, size[0]) if stretched > 0 else (width, size[1])

    def length(count: int) -> float:
        return side / (1 + (count - 1) * (1 - overlap))

    fitting = [count for count in range(1, most + 1) if count == 1 or length(count) >= least]
    count = min(fitting, key=lambda count: abs(abs(stretched) + math.log(length(count) / side)))
    return TileGrid(count, 1, overlap) if stretched > 0 else TileGrid(1, count, overlap)


def parse_grid(text: str, overlap: float = OVERLAP) -> TileGrid:
    """Reads ROWSxCOLUMNS, such as `3x1`.

    Raises:
        SettingsError: It is no such thing, has one tile or too many, or the overlap is not from 0 to MOST_OVERLAP.
    """
    found = _GRID.fullmatch(text.strip().lower())
    if found is None:
        raise SettingsError(f"tiles {text!r}: write ROWSxCOLUMNS, such as 3x1 for a part three times as tall as wide")
    grid = TileGrid(int(found[1]), int(found[2]), overlap)
    if not 2 <= grid.count <= MOST_TILES:
        raise SettingsError(
            f"tiles {text}: {grid.count} tiles in all; choose from 2 to {MOST_TILES}, or leave tiles out for the whole "
            "frame as one"
        )
    if not 0 <= overlap <= MOST_OVERLAP:
        raise SettingsError(f"an overlap of {overlap:g}: choose from 0 to {MOST_OVERLAP:g} of a tile's side")
    return grid


def _scaled(position: int, full: int, whole: int) -> int:
    """A position in `whole` pixels, in `full` ones; in whole numbers and halves upwards, so that equal gaps stay."""
    return (2 * position * full + whole) // (2 * whole)


def _ramps(starts: Sequence[int], side: int) -> npt.NDArray[np.float64]:
    """Weights along one axis, [tiles, side]; at any place at most two tiles meet, and their weights sum to 1."""
    weights = np.ones((len(starts), side))
    for number in range(1, len(starts)):
        shared = starts[number - 1] + side - starts[number]
        rising = (np.arange(shared) + 0.5) / max(shared, 1)
        weights[number, :shared] = rising
        weights[number - 1, side - shared :] *= 1 - rising
    return weights
