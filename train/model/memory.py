"""The reference memory in the graph: how far each patch is from the nearest of what good images showed.

Nothing here learns by gradients. A memory is an input of the graph, so that no engine is built again for another part.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kanoclip.runtime.detect.reference.fused import LEAST_SHARE
from kanoclip.train.model.smoothing import MapSmoothing

EDGE = float(LEAST_SHARE)
"""Zero-shot maps are clipped so far from 0 and 1 before their logit is taken."""


class MemoryFusion(nn.Module):
    """Distances to a reference memory, and one map and score of them and of the zero-shot ones.

    Attributes:
        channels: D of the descriptors.
        dtype: Of the product of descriptors and memory, the only large one. float32 where the graph is; TensorRT on
            SM75 refuses a float32 product beside half precision.
    """

    def __init__(
        self, grid: tuple[int, int], channels: int, size: tuple[int, int], dtype: torch.dtype = torch.float32
    ) -> None:
        """Prepares the upsampling for a grid (rows, columns) of descriptors and a map (height, width)."""
        super().__init__()
        self.grid, self.channels, self.dtype = grid, channels, dtype
        self.smoothing = MapSmoothing(grid, size)
        self.smoothing.elementwise = dtype != torch.float32

    def forward(
        self,
        descriptors: Tensor,
        zero_map: Tensor,
        zero_score: Tensor,
        memory: Tensor,
        bias: Tensor,
        centre: Tensor,
        fusion: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Fuses both maps where there is a memory; else map and score come back as they are, bit for bit.

        Args:
            descriptors: Unit vectors, float32 [B, P, D].
            zero_map: M of eq. 10, float32 [B, H, W] in [0, 1].
            zero_score: S / 2 of eq. 12, float32 [B] in [0, 1].
            memory: Unit vectors, the references' descriptors less the centre, float32 [R, D].
            bias: float32 [R]: -centre . row, and a large negative number for a row that is none.
            centre: float32 [D].
            fusion: float32 [8]: whether there is a memory, gain, offset, the zero-shot map's gain and offset, shift.

        Returns:
            Map float32 [B, H, W] and score float32 [B], both in [0, 1].
        """
        distance = self.smoothing(self.distance(descriptors, memory, bias, centre))
        active, gain, offset, zero_gain, zero_offset, shift = fusion[:6].unbind()
        clipped = zero_map.clamp(EDGE, 1 - EDGE)
        zero_logit = torch.log(clipped) - torch.log(1 - clipped)
        fused = torch.sigmoid(gain * (distance - offset) + zero_gain * (zero_logit - zero_offset) + shift)
        has_memory = active > 0.5
        return (
            torch.where(has_memory, fused, zero_map),
            torch.where(has_memory, fused.amax(dim=(1, 2)), zero_score),
        )

    def distance(self, descriptors: Tensor, memory: Tensor, bias: Tensor, centre: Tensor) -> Tensor:
        """1 - cosine of each descriptor, less the centre, to the nearest row: float32 [B, rows, columns] in [0, 2].

        The centre is not subtracted from the descriptors but from the product: its share of it is in the bias, and
        what it changes of a unit vector's length follows from one more product.
        """
        count = descriptors.shape[0]
        flat = descriptors.flatten(0, 1)
        products = F.linear(flat.to(self.dtype), memory.to(self.dtype), bias.to(self.dtype))
        nearest = products.float().amax(dim=-1)
        length = (1 - 2 * (flat * centre).sum(-1) + centre.square().sum()).clamp(min=EDGE).sqrt()
        return (1 - nearest / length).reshape(count, *self.grid)
