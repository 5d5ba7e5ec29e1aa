"""Upsampling and Gaussian smoothing of the map (eq. 10) as one constant pair of matrices: M = K_h m K_w^T, exactly."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kanoclip.runtime.detect.reference.smoothing import bilinear_matrix, gaussian_matrix, map_sigma


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

    def __init__(self, grid: tuple[int, int], size: tuple[int, int], sigma: float | None = None) -> None:
        """Builds the matrices.

        Args:
            grid: (rows, columns) of patches.
            size: (height, width) of the image in pixels.
            sigma: Of the Gaussian in pixels; None for the size's own.
        """
        super().__init__()
        self.elementwise = False
        sigma = map_sigma(size[0]) if sigma is None else sigma
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
