"""From a camera's bytes to the tokens of the blocks: preprocessing folded into the first weights.

Both kinds take the frame as it lies in memory, BGR and channels last, less a whole number that fp16 holds exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kanoclip.train.model.stem.stem import SCALE, StemFeatures
from kanoclip.train.model.stem.stem import SHIFT as STEM_SHIFT
from kanoclip.train.model.towers.clip_vv import CLIP_PIXELS, ClipVV, ImageFeatures, Normalisation

SHIFT = 128
"""Subtracted from the uint8 pixels before CLIP's patch convolution. It is exact, and it halves the rounding error that
folding mean and std into fp16 weights makes (measured 3.0e-4 against 6.3e-4)."""


class PatchFront(nn.Module):
    """CLIP's patch convolution as one MatMul over the bytes.

    Attributes:
        shift: What the caller subtracts from the frame.
    """

    patch_weight: Tensor
    first_token: Tensor | None
    positions: Tensor

    def __init__(self, tower: ClipVV, dtype: torch.dtype) -> None:
        """Folds a plain ViT's preprocessing; the tower is left as it is."""
        super().__init__()
        assert tower.patch_embedding is not None  # a plain ViT has it
        self.shift = SHIFT
        self.grid, self.patch = tower.grid, int(tower.patch_embedding.kernel_size[0])
        with torch.no_grad():
            weight, bias = fold_preprocessing(tower.patch_embedding.weight, tower.normalisation)
            if tower.patch_embedding.bias is not None:
                bias = bias + tower.patch_embedding.bias
            positions = tower.positional_embedding
            embedding = tower.class_embedding
            first = None if embedding is None else (embedding + positions[0])[None, None].to(dtype)
        self.register_buffer("patch_weight", weight.to(dtype))
        self.register_buffer("first_token", first)
        self.register_buffer("positions", (positions[tower.prefix :] + bias).to(dtype))

    def forward(self, pixels: Tensor) -> tuple[Tensor, None, None]:
        """Shifted pixels [B, H, W, 3] -> tokens [B, N, C_v], and nothing beside them."""
        rows, columns = self.grid
        pixels = pixels.reshape(-1, rows, self.patch, columns, self.patch * 3)
        patches = pixels.transpose(2, 3).reshape(-1, rows * columns, self.patch * self.patch * 3) @ self.patch_weight
        tokens = patches + self.positions
        if self.first_token is not None:
            tokens = torch.cat([self.first_token.expand(patches.shape[0], -1, -1), tokens], dim=1)
        return tokens, None, None

    def describe(self, tower: ClipVV, image: ImageFeatures, features: None) -> Tensor:
        """Descriptors from the tower's middle stages."""
        return tower.middle_descriptor(image)


class StemFront(nn.Module):
    """The convolutional stem, its normalisation and the channels' order folded into the first convolution.

    127 is subtracted and 1/128 folded, both exactly, so that the convolutions' padding by zeros stays what it is.

    Attributes:
        shift: What the caller subtracts from the frame.
    """

    first_token: Tensor
    positions: Tensor

    def __init__(self, tower: ClipVV) -> None:
        """Takes over a tower's stem, which is changed: give it a copy."""
        super().__init__()
        assert tower.stem is not None and tower.class_embedding is not None  # the caller has looked
        self.shift = int(STEM_SHIFT)
        self.stem = tower.stem
        first = self.stem.trunk.first.conv
        first.weight = nn.Parameter(first.weight.detach().flip(1) / SCALE, requires_grad=False)
        positions = tower.positional_embedding.detach()
        self.first_token = nn.Parameter((tower.class_embedding.detach() + positions[0])[None, None])
        self.positions = nn.Parameter(positions[1:].clone())
        self.requires_grad_(False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, StemFeatures]:
        """Shifted pixels [B, H, W, 3] -> tokens [B, 1 + P, C_v], each patch's distance, and what the trunk saw."""
        # A bf16 graph's convolutions stay float32: ONNX has a bf16 Conv only from opset 22.
        channels_first = pixels.permute(0, 3, 1, 2).to(self.stem.trunk.first.conv.weight.dtype)
        features = self.stem.read_scaled(channels_first)
        patches, distance = self.stem(features)
        first = self.first_token.expand(patches.shape[0], -1, -1)
        return torch.cat([first, patches + self.positions], dim=1), distance, features

    def describe(self, tower: ClipVV, image: ImageFeatures, features: StemFeatures) -> Tensor:
        """Descriptors from the stem's stages."""
        return self.stem.descriptor(features)


def fold_preprocessing(weight: Tensor, normalisation: Normalisation = CLIP_PIXELS) -> tuple[Tensor, Tensor]:
    """Folds channel order, 1/255, mean and std into the patch convolution.

    The convolution has no padding, so this is exact: with y = bgr - SHIFT the normalised RGB value of channel c is
    (y[2 - c] + SHIFT) / (255 std_c) - mean_c / std_c. Its patches do not overlap either, so it is written as a MatMul
    over the patch's bytes in the order in which the camera delivers them: no transposition to channels first is needed.

    Args:
        weight: The convolution's weight for normalised RGB, [C_v, 3, p, p].
        normalisation: What it expects of pixels.

    Returns:
        Matrix [p * p * 3, C_v] for the shifted BGR pixels of a patch in memory order, and the bias [C_v] that makes up
        for shift and mean; float32.
    """
    mean = torch.tensor(normalisation.mean, dtype=torch.float64)[:, None, None]
    std = torch.tensor(normalisation.std, dtype=torch.float64)[:, None, None]
    exact = weight.double()
    bias = (exact * ((SHIFT / 255 - mean) / std)).sum(dim=(1, 2, 3))
    matrix = (exact / (255 * std)).flip(1).permute(2, 3, 1, 0).flatten(0, 2)
    return matrix.float(), bias.float()
