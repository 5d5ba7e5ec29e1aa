"""Upsampling and Gaussian smoothing of the map (eq. 10) as one constant pair of matrices: M = K_h m K_w^T, exactly."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Matrix = npt.NDArray[np.float64]


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


class MapSmoothing(nn.Module):
    """From a patch map to a full-size one, with and without the Gaussian; float32 throughout.

    Attributes:
        elementwise: Write the products as Mul + ReduceSum instead of MatMul. fp16 and bf16 graphs need it: the map
            stays float32 there, and TensorRT on SM75 refuses float32 MatMul beside half precision.
    """

    k_rows: Tensor
    k_columns: Tensor
    u_rows: Tensor
    u_columns: Tensor

    def __init__(self, grid: tuple[int, int], size: tuple[int, int]) -> None:
        """Builds the matrices for a patch grid (rows, columns) and an image (height, width)."""
        super().__init__()
        self.elementwise = False
        sigma = 4 * size[0] / 336
        for axis, cells, pixels in (("rows", grid[0], size[0]), ("columns", grid[1], size[1])):
            up = bilinear_matrix(pixels, cells)
            blur = gaussian_matrix(pixels, sigma)
            self.register_buffer(f"u_{axis}", torch.from_numpy(up).float(), persistent=False)
            self.register_buffer(f"k_{axis}", torch.from_numpy(blur @ up).float(), persistent=False)

    def upsample(self, cells: Tensor) -> Tensor:
        """Bilinear only, as the losses use it: [B, rows, columns] -> [B, H, W]."""
        return self.u_rows @ cells @ self.u_columns.T

    def forward(self, cells: Tensor) -> Tensor:
        """Upsampled and blurred: [B, rows, columns] -> [B, H, W]."""
        if not self.elementwise:
            return self.k_rows @ cells @ self.k_columns.T
        half = (self.k_rows[None, :, :, None] * cells[:, None]).sum(2)
        return (half[:, :, None, :] * self.k_columns[None, None]).sum(3)
