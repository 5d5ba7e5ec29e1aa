"""Conv-Adapter: a depthwise separable bottleneck that aligns the global feature with the text (fig. 4, eq. 11)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kanoclip.train.model.layers import LayerNorm


class ConvAdapter(nn.Module):
    """I_G' = I_G + W_up mean(ReLU(PW(DW3x3(LN(P_4 + I_G))))): the identity until it is trained."""

    def __init__(self, dim: int, grid: tuple[int, int]) -> None:
        """Builds it for features of width `dim` on a patch grid (rows, columns)."""
        super().__init__()
        self.grid = grid
        self.norm = LayerNorm(dim)
        self.depthwise = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.pointwise = nn.Linear(dim, dim // 4)
        self.up = nn.Linear(dim // 4, dim)
        with torch.no_grad():
            self.up.weight.zero_()
            self.up.bias.zero_()

    def forward(self, global_token: Tensor, patches: Tensor) -> Tensor:
        """Adapts the global feature.

        Args:
            global_token: I_G, L2-normalised, [B, C].
            patches: P_4, the last stage's patch features, L2-normalised, [B, P, C].

        Returns:
            I_G' [B, C], not normalised.
        """
        tokens = self.norm(patches + global_token[:, None])
        cells = tokens.transpose(1, 2).unflatten(2, self.grid)
        # bf16 graphs keep this convolution in fp32 (ONNX has a bf16 Conv only from opset 22): follow its weight.
        cells = self.depthwise(cells.to(self.depthwise.weight.dtype)).to(tokens.dtype)
        hidden = torch.relu(self.pointwise(cells.flatten(2).transpose(1, 2)))
        return global_token + self.up(hidden.float().mean(dim=1).to(hidden.dtype))
