"""Convolutional stem: patch tokens and descriptors from EfficientNet-Lite, in place of CLIP's patch convolution.

The trunk was trained on ImageNet and is frozen. Its stages, brought to one grid and standardised, are what the blocks
read; beside them stands how unlike each patch is to the other patches of its own image, the strongest single sign of
an anomaly that needs no training at all (docs/nano.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kanoclip.runtime.errors import CheckpointError
from kanoclip.train.model.stem.efficientnet import Trunk, Variant

PATCH = 16
"""Pixels of a token's side: the grid of the stages of stride 16."""
_COARSEST = 32
"""Stride of the last stage, of which an image holds whole cells; a single one would leave patches without others to be
compared with."""
SHIFT, SCALE = 127.0, 128.0
"""The trunk's own normalisation: (RGB - 127) / 128."""
SHARPNESS = (64.0, 20.0, 8.0)
"""beta of each soft maximum over the similarities: from nearly the most similar patch alone to a broad mean of many."""
_NEIGHBOURS = 1
"""A patch is not compared with itself and with those up to so many cells away, which see the same pixels."""
_CALM = 0.02
"""Added to the spread of an image's self-similarity: an even surface's noise must not be blown up into a pattern."""
_FLOOR = 1e-12
"""Added to the mean of the exponentials: the sharpest channel ends at a distance of 0.43, where nothing is alike."""
_DISTANCE_GAIN = 10.0
"""1 - cosine is small: brought to the size of the standardised channels."""


@dataclass(frozen=True)
class StemConfig:
    """A stem's shape; part of a backbone's configuration.

    Attributes:
        variant: Which EfficientNet-Lite.
        descriptor_channels: D, channels of a descriptor.
    """

    variant: Variant
    descriptor_channels: int = 384


@dataclass(frozen=True)
class StemFeatures:
    """What the trunk saw, as small as it is needed: this is what training caches.

    Attributes:
        pooled: Stride 4, mean and maximum over each token's pixels, [B, 2 C4, rows, columns].
        fine: Stride 8, [B, C8, 2 rows, 2 columns].
        middle: Both stages of stride 16, [B, C16, rows, columns].
        coarse: Stride 32, [B, C32, rows / 2, columns / 2].
    """

    pooled: Tensor
    fine: Tensor
    middle: Tensor
    coarse: Tensor


class ConvStem(nn.Module):
    """From pixels to the tokens that the transformer's blocks read, and to descriptors for a reference memory.

    Attributes:
        grid: (rows, columns) of tokens.
        descriptor_grid: (rows, columns) of descriptors: twice as fine.
    """

    mean: Tensor
    std: Tensor
    descriptor_mean: Tensor
    descriptor_std: Tensor
    descriptor_basis: Tensor
    far: Tensor

    def __init__(self, config: StemConfig, width: int, size: tuple[int, int]) -> None:
        """Builds it with torch's first values.

        Args:
            config: Its shape.
            width: Of the tokens.
            size: (height, width) of the image in pixels, multiples of 32 and one of them at least 64.

        Raises:
            CheckpointError: The size is another one.
        """
        super().__init__()
        if size[0] % _COARSEST or size[1] % _COARSEST or max(size) < 2 * _COARSEST:
            raise CheckpointError(
                f"image size {size[0]}x{size[1]} does not suit a convolutional stem: multiples of {_COARSEST} do, from "
                f"{_COARSEST}x{2 * _COARSEST}"
            )
        self.config = config
        self.trunk = Trunk(config.variant)
        self.grid = (size[0] // PATCH, size[1] // PATCH)
        self.descriptor_grid = (2 * self.grid[0], 2 * self.grid[1])
        c4, c8, c16a, c16b, c32 = self.trunk.channels
        channels = 2 * c4 + 4 * c8 + c16a + c16b + c32
        self.token_project = nn.Linear(channels + 2 * len(SHARPNESS), width)
        remaining = config.descriptor_channels - c8 - c16a - c16b
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.register_buffer("descriptor_mean", torch.zeros(c8 + c16a + c16b + c32))
        self.register_buffer("descriptor_std", torch.ones(c8 + c16a + c16b + c32))
        self.register_buffer("descriptor_basis", torch.eye(remaining, c32))
        self.register_buffer("far", _far(self.grid), persistent=False)
        self.requires_grad_(False)

    def at_size(self, size: tuple[int, int]) -> ConvStem:
        """The same stem for images of another size (height, width); parameters and statistics are shared."""
        if (size[0] // PATCH, size[1] // PATCH) == self.grid:
            return self
        other = ConvStem(self.config, self.token_project.out_features, size)
        other.trunk, other.token_project = self.trunk, self.token_project
        for name in ("mean", "std", "descriptor_mean", "descriptor_std", "descriptor_basis"):
            other.register_buffer(name, self.get_buffer(name))
        return other

    def read(self, pixels: Tensor) -> StemFeatures:
        """CLIP-normalised RGB pixels [B, 3, H, W] -> what the trunk saw."""
        mean = pixels.new_tensor(open_clip.OPENAI_DATASET_MEAN)[:, None, None]
        std = pixels.new_tensor(open_clip.OPENAI_DATASET_STD)[:, None, None]
        return self.read_scaled(((pixels * std + mean) * 255 - SHIFT) / SCALE)

    def read_scaled(self, pixels: Tensor) -> StemFeatures:
        """The same of pixels in the trunk's own normalisation, (RGB - 127) / 128."""
        s4, s8, s16a, s16b, s32 = self.trunk(pixels)
        pooled = torch.cat([F.avg_pool2d(s4, 4), F.max_pool2d(s4, 4)], dim=1)
        return StemFeatures(pooled, s8, torch.cat([s16a, s16b], dim=1), s32)

    def forward(self, features: StemFeatures) -> tuple[Tensor, Tensor]:
        """Tokens of the blocks' width, without positions, [B, P, width]; and each patch's `distance_of`, [B, P]."""
        compared = self.compare(self.standardised(features))
        return self.project(compared), self.distance_of(compared)

    def distance_of(self, compared: Tensor) -> Tensor:
        """How unlike the rest of its image each patch is, times a constant: float32 [B, P], the middle sharpness.

        Args:
            compared: From `compare`, [B, P, channels].
        """
        return compared[..., self.mean.shape[0] + len(SHARPNESS) // 2].float()

    def standardised(self, features: StemFeatures) -> Tensor:
        """All stages on the token grid, each channel of mean 0 and deviation 1 over training's images."""
        return (self.gather(features) - self.mean) / self.std

    def gather(self, features: StemFeatures) -> Tensor:
        """All stages on the token grid: [B, P, channels], not standardised."""
        coarse = F.interpolate(features.coarse, size=self.grid, mode="bilinear", align_corners=False)
        # What pixel_unshuffle gives, channels last at once: one transposition for both.
        rows, columns = self.grid
        halves = features.fine.unflatten(3, (columns, 2)).unflatten(2, (rows, 2))
        unshuffled = halves.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        parts = [part.permute(0, 2, 3, 1).flatten(1, 2) for part in (features.pooled, features.middle, coarse)]
        return torch.cat([parts[0], unshuffled, *parts[1:]], dim=2)

    def project(self, compared: Tensor) -> Tensor:
        """What `compare` gives -> tokens [B, P, width]."""
        projected: Tensor = self.token_project(compared)
        return projected

    def compare(self, standardised: Tensor) -> Tensor:
        """Standardised stages [B, P, channels] -> their directions, with self-similarity beside them.

        In the precision of the projection that follows; nothing here learns, so that training caches it.
        """
        dtype = self.token_project.weight.dtype
        directions = F.normalize(standardised.float(), dim=-1)
        unlike = self.unlikeness(directions.to(dtype))
        return torch.cat([directions * directions.shape[-1] ** 0.5, unlike], dim=-1).to(dtype)

    def unlikeness(self, directions: Tensor) -> Tensor:
        """How unlike a patch is to the rest of its image.

        `1 - log(mean_j exp(beta (s_ij - 1))) / beta - 1` over the patches j that are not next to it: a soft maximum
        of the cosines s, which engines take more gladly than TopK, and which has a gradient everywhere.

        Args:
            directions: L2-normalised, [B, P, channels].

        Returns:
            float32 [B, P, 2 * len(SHARPNESS)]: distances, and the same standardised over the image.
        """
        distance = 1 - (directions @ directions.transpose(1, 2)).float()
        sums = [(torch.exp(-beta * distance) * self.far).sum(-1) for beta in SHARPNESS]
        # log(sum + floor), written so that no constant is near zero: ONNX's optimizer takes 1e-12 for 0 and drops it.
        parts = [
            -(torch.log(total / _FLOOR + 1) + math.log(_FLOOR)) / beta
            for beta, total in zip(SHARPNESS, sums, strict=True)
        ]
        values = torch.stack(parts, dim=-1)
        centred = values - values.mean(dim=1, keepdim=True)
        # The root has no gradient at 0, which an image of one colour reaches; a graph needs none, and drops the floor.
        spread = (centred.square().mean(dim=1, keepdim=True) + _FLOOR).sqrt()
        return torch.cat([_DISTANCE_GAIN * values, centred / (spread + _CALM)], dim=-1)

    def descriptor(self, features: StemFeatures) -> Tensor:
        """Descriptors for a reference memory: L2-normalised, float32 [B, 4 P, D].

        Stages of stride 8, 16 and 32, standardised. The coarse one is projected where it is small, before it is
        brought to the fine grid: the projection is linear, so the order does not matter but for its cost.
        """
        stages = (features.fine, features.middle, features.coarse)
        sizes = [stage.shape[1] for stage in stages]
        means, stds = self.descriptor_mean.split(sizes), self.descriptor_std.split(sizes)
        fine, middle, coarse = (
            ((stage - mean[:, None, None]) / std[:, None, None]).to(stage.dtype)
            for stage, mean, std in zip(stages, means, stds, strict=True)
        )
        coarse = F.conv2d(coarse, self.descriptor_basis[:, :, None, None].to(coarse.dtype))
        raised = [
            F.interpolate(part, size=self.descriptor_grid, mode="bilinear", align_corners=False)
            for part in (middle, coarse)
        ]
        return F.normalize(torch.cat([fine, *raised], dim=1).permute(0, 2, 3, 1).flatten(1, 2).float(), dim=-1)


def _far(grid: tuple[int, int]) -> Tensor:
    """1 / count where two cells are no neighbours, else 0: float32 [P, P], each row sums to 1."""
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    y, x = rows.flatten(), columns.flatten()
    apart = torch.maximum((y[:, None] - y).abs(), (x[:, None] - x).abs())
    far = (apart > _NEIGHBOURS).float()
    return far / far.sum(dim=1, keepdim=True)
