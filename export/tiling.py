"""`kanoclip-export --tiles auto`: the tiles that suit the images that the user named."""

from __future__ import annotations

from pathlib import Path

from kanoclip.export.parity import read_sample, sample_paths
from kanoclip.runtime.bundle.manifest import TileGrid
from kanoclip.runtime.detect.tiles import auto_grid
from kanoclip.runtime.errors import ExportError
from kanoclip.runtime.sources.files.headers import image_size

ASPECTS_APART = 1.1
"""Largest ratio of two images' aspects: one grid suits both."""


def choose_grid(source: Path, limit: int, size: tuple[int, int], overlap: float, flag: str) -> TileGrid | None:
    """Tiles by the aspect of the images, and by the size of the smallest.

    Args:
        source: A folder or an image.
        limit: Most images to look at, spread evenly.
        size: (height, width) of the model.
        overlap: Share of a tile's side that it has in common with its neighbour.
        flag: The command line's name for the source, for messages.

    Returns:
        The grid; None where the images are best seen as a whole.

    Raises:
        SourceError: There is no image.
        ExportError: An image cannot be read, or two are of different shapes.
    """
    sizes = {path: _size(path, flag) for path in sample_paths(source, limit, flag)}
    aspects = {path: height / width for path, (height, width) in sizes.items()}
    flattest, tallest = min(aspects, key=aspects.__getitem__), max(aspects, key=aspects.__getitem__)
    if aspects[tallest] > ASPECTS_APART * aspects[flattest]:
        (one_height, one_width), (height, width) = sizes[flattest], sizes[tallest]
        raise ExportError(
            f"no tiles suit both {flattest} ({one_width}x{one_height} pixels) and {tallest} ({width}x{height}): name "
            f"images of one shape with {flag}, or the grid, such as --tiles 3x1"
        )
    smallest = min(sizes.values(), key=lambda one: one[0] * one[1])
    grid = auto_grid(*smallest, size, overlap)
    return grid if grid.count > 1 else None


def _size(path: Path, flag: str) -> tuple[int, int]:
    """(height, width) of an image, from its header where that tells it."""
    found = image_size(path)
    if found is None:
        height, width, _ = read_sample(path, flag).shape
        found = height, width
    return found
