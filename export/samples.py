"""Images of a folder for the parity gate and for calibration, whole or in tiles, with their labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.detect.preprocess import resize
from kanoclip.runtime.detect.tiles import WHOLE, Tiling, auto_grid
from kanoclip.runtime.errors import ExportError, FrameError
from kanoclip.runtime.sources.files.headers.header import image_size
from kanoclip.runtime.sources.files.images import ImageSource, read_image
from kanoclip.runtime.sources.files.reading import AS_IT_IS, Reading
from kanoclip.runtime.types import Image

NORMAL_FOLDERS = ("good", "normal")
ASPECTS_APART = 1.1
"""Largest ratio of two images' aspects: one grid suits both."""


@dataclass(frozen=True)
class Sample:
    """One image of the gate, or a tile of one.

    Attributes:
        path: Where the image is.
        frame: uint8 [h, w, 3], BGR, of the size that the graph takes.
        anomalous: The image's label, None when its folder does not say.
    """

    path: Path
    frame: Image
    anomalous: bool | None


def load_samples(
    source: Path,
    size: tuple[int, int],
    limit: int,
    flag: str = "--parity-images",
    tiles: TileGrid = WHOLE,
    reading: Reading = AS_IT_IS,
) -> list[Sample]:
    """Reads images for the gate or for calibration, spread evenly over a folder.

    An image in a folder called `good` or `normal` is normal; beside such a folder, all others are anomalous.

    Args:
        source: A folder or an image.
        size: (height, width) that the graph takes.
        limit: Most images to use.
        flag: The command line's name for the source, for messages.
        tiles: How an image is cut: each of its tiles is a sample.
        reading: How an image is read.

    Raises:
        SourceError: There is no image.
        ExportError: An image cannot be read, or is too small for the tiles: a gate is not the place to skip one.
    """
    paths, tiling = sample_paths(source, limit, flag), Tiling(tiles, size)
    labelled = any(path.parent.name in NORMAL_FOLDERS for path in paths)
    samples = []
    for path in paths:
        image = read_sample(path, flag, reading)
        try:
            tiling.check_frame(*image.shape[:2])
        except FrameError as error:
            raise ExportError(f"{path}: {error}") from error
        anomalous = path.parent.name not in NORMAL_FOLDERS if labelled else None
        samples += [Sample(path, tile, anomalous) for tile in tiling.cut(resize(image, *tiling.canvas))]
    return samples


def sample_paths(source: Path, limit: int, flag: str) -> list[Path]:
    """The images that `load_samples` reads.

    Raises:
        SourceError: There is no image.
        ExportError: There is no such folder or file.
    """
    if not source.exists():
        raise ExportError(f"no images at {source}: name a folder or a file with {flag}")
    paths = (ImageSource.from_folder(source) if source.is_dir() else ImageSource.from_file(source)).paths
    step = max(len(paths) / limit, 1.0)
    return [paths[int(i * step)] for i in range(min(limit, len(paths)))]


def read_sample(path: Path, flag: str, reading: Reading = AS_IT_IS) -> Image:
    """One image, uint8 [H, W, 3], BGR.

    Raises:
        ExportError: It cannot be read.
    """
    image = read_image(path, reading)
    if isinstance(image, str):
        raise ExportError(f"cannot read {path} ({image}): name other images with {flag}")
    return image


def choose_grid(
    source: Path, limit: int, size: tuple[int, int], overlap: float, flag: str, reading: Reading = AS_IT_IS
) -> TileGrid | None:
    """Tiles by the aspect of the images, and by the size of the smallest.

    Args:
        source: A folder or an image.
        limit: Most images to look at, spread evenly.
        size: (height, width) of the model.
        overlap: Share of a tile's side that it has in common with its neighbour.
        flag: The command line's name for the source, for messages.
        reading: How an image is read whose header does not tell its size.

    Returns:
        The grid; None where the images are best seen as a whole.

    Raises:
        SourceError: There is no image.
        ExportError: An image cannot be read, or two are of different shapes.
    """
    sizes = {path: _size(path, flag, reading) for path in sample_paths(source, limit, flag)}
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


def _size(path: Path, flag: str, reading: Reading) -> tuple[int, int]:
    """(height, width) of an image, from its header where that tells it."""
    found = image_size(path)
    if found is None:
        height, width, _ = read_sample(path, flag, reading).shape
        found = height, width
    return found
