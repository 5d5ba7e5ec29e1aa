"""Deformable self-attention over a token grid, without GridSample.

Bilinear sampling at p points is a product of two hat functions, so the matrix
`A[h, q, y, x] = sum_p w_p hat(y_p - y) hat(x_p - x)` is an attention matrix and the sampled value is `A @ V`. It equals
grid_sample(align_corners=True, padding_mode="zeros") and needs only element-wise operators and MatMul; TensorRT's
parser has silently run GridSample as nearest at opset 20.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kanoclip.train.model.layers import float32_matmul, merge_heads, split_heads

POINTS = 4
REACH = 3.0
"""Furthest sampling point from its query, in grid cells: offsets are REACH * tanh(.)."""
START = 0.5
"""The four points start at (+-0.5, +-0.5) cells: at whole cells the hat's gradient would be exactly 0."""


class DeformableSelfAttention(nn.Module):
    """Every token samples V at four learned points around itself, per head, and mixes them with learned weights.

    The paper cites DAT, whose points are shared between queries; per-query points are this project's documented choice.

    Attributes:
        elementwise: Sum the points one by one instead of by a MatMul. fp16 and bf16 graphs need it: A is made in
            float32, and TensorRT on SM75 refuses float32 MatMul beside half precision.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, dim: int, inner: int, heads: int, grid: tuple[int, int]) -> None:
        """Builds it for tokens of width `dim` on a grid (rows, columns); values have width `inner`."""
        super().__init__()
        self.heads, self.grid = heads, grid
        self.elementwise = False
        self.value = nn.Linear(dim, inner)
        self.offsets = nn.Linear(dim, heads * POINTS * 2)
        self.weights = nn.Linear(dim, heads * POINTS)
        corners = torch.tensor([[-START, -START], [-START, START], [START, -START], [START, START]])
        with torch.no_grad():
            self.offsets.weight.zero_()
            self.offsets.bias.copy_(torch.atanh(corners / REACH).repeat(heads, 1, 1).flatten())
            self.weights.weight.zero_()
            self.weights.bias.zero_()
        self.register_buffer("rows", torch.arange(grid[0], dtype=torch.float32), persistent=False)
        self.register_buffer("columns", torch.arange(grid[1], dtype=torch.float32), persistent=False)

    def points(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Where each token looks, and how much each point counts; float32 whatever the dtype of the tokens.

        Args:
            tokens: [B, P, C], row by row.

        Returns:
            Positions (y, x) in grid cells [B, heads, P, points, 2], and weights summing to 1 [B, heads, P, points].
        """
        rows, columns = self.grid
        offsets = self.offsets(tokens).float().unflatten(-1, (self.heads, POINTS, 2))
        own = torch.stack(
            [self.rows[:, None].expand(rows, columns), self.columns[None, :].expand(rows, columns)], dim=-1
        ).flatten(0, 1)
        positions = own[:, None, None, :] + REACH * torch.tanh(offsets)
        weights = torch.softmax(self.weights(tokens).float().unflatten(-1, (self.heads, POINTS)), dim=-1)
        return positions.transpose(1, 2), weights.transpose(1, 2)

    def matrix(self, positions: Tensor, weights: Tensor) -> Tensor:
        """The attention matrix A: [B, heads, P, P] float32, the sum over the points of two hats' outer product."""
        y, x = positions[..., 0, None], positions[..., 1, None]
        hat_y = weights[..., None] * torch.relu(1 - (y - self.rows).abs())
        hat_x = torch.relu(1 - (x - self.columns).abs())
        if not self.elementwise:
            return float32_matmul(hat_y.transpose(-1, -2), hat_x).flatten(-2)
        total = hat_y[..., 0, :, None] * hat_x[..., 0, None, :]
        for point in range(1, POINTS):
            total = total + hat_y[..., point, :, None] * hat_x[..., point, None, :]
        return total.flatten(-2)

    def forward(self, tokens: Tensor) -> Tensor:
        """Layer-normed tokens [B, P, C] -> sampled values [B, P, inner], before the output projection."""
        value = split_heads(self.value(tokens), self.heads)
        matrix = self.matrix(*self.points(tokens)).to(value.dtype)
        return merge_heads(matrix @ value)
