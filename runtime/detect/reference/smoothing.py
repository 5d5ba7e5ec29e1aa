"""Upsampling and Gaussian smoothing of the map (eq. 10) as one constant pair of matrices: M = K_h m K_w^T, exactly."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]


def bilinear_matrix(size: int, cells: int) -> Matrix:
    """Rows of weights that interpolate `cells` values to `size` (bilinear, align_corners False): [size, cells]."""
    position = np.clip((np.arange(size) + 0.5) * cells / size - 0.5, 0, cells - 1)
    low = np.minimum(position.astype(np.int64), max(cells - 2, 0))
    high = np.minimum(low + 1, cells - 1)
    share = position - low
    matrix = np.zeros((size, cells))
    np.add.at(matrix, (np.arange(size), low), 1 - share)
    np.add.at(matrix, (np.arange(size), high), share)
    return matrix


def gaussian_matrix(size: int, sigma: float) -> Matrix:
    """A Gaussian filter cut at 4 sigma, edges mirrored as scipy does (dcba|abcd): [size, size]."""
    radius = math.ceil(4 * sigma)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    # A mirror at both edges has period 2 * size; folding twice covers kernels wider than the image.
    source = (np.arange(size)[:, None] + offsets[None, :]) % (2 * size)
    source = np.where(source < size, source, 2 * size - 1 - source)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.repeat(np.arange(size), len(offsets)), source.ravel()), np.tile(kernel, size))
    return matrix


def map_sigma(height: int) -> float:
    """The Gaussian's sigma in pixels of a map of so many rows: 4 at 336."""
    return 4 * height / 336


@lru_cache(maxsize=8)
def smoothing_matrices(grid: tuple[int, int], size: tuple[int, int]) -> tuple[Floats, Floats]:
    """K_h [H, rows] and K_w [W, columns] for cells (rows, columns) and a map (H, W); shared, so not to be changed."""
    sigma = map_sigma(size[0])
    rows, columns = (
        (gaussian_matrix(pixels, sigma) @ bilinear_matrix(pixels, cells)).astype(np.float32)
        for cells, pixels in zip(grid, size, strict=True)
    )
    return rows, columns


def smooth(cells: Floats, size: tuple[int, int]) -> Floats:
    """Upsampled and blurred as the graph does it: float32 [N, rows, columns] -> [N, H, W]."""
    rows, columns = smoothing_matrices((cells.shape[1], cells.shape[2]), size)
    return np.asarray(rows @ cells @ columns.T, np.float32)
