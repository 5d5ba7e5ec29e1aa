"""What CLIP-VV asks of an image tower, whoever wrote it: tokens, blocks whose V can be read, a global feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from kanoclip.runtime.errors import CheckpointError
from kanoclip.train.model.stem.stem import ConvStem


@dataclass(frozen=True)
class Rotation:
    """Rotary positions of all tokens, for heads whose channels come in two halves: pair i is (i, i + D / 2).

    Attributes:
        cos: float32 [N, D]; 1 for a class token, which is not rotated.
        sin: float32 [N, D], its first half negated: x * cos + swapped halves of x * sin is the rotation.
    """

    cos: Tensor
    sin: Tensor


@dataclass(frozen=True)
class TokenParts:
    """From pixels to the tokens of the first block.

    Attributes:
        patch: The patch convolution, without overlap or padding, or a stem in its place.
        patch_size: (height, width) in pixels.
        grid: (rows, columns) that the positions were learned for.
        first: Class token, [C_v]; None for a tower that has none.
        positions: Learned positions, [1 + P, C_v] with a class token and [P, C_v] without.
        norm: Layer norm before the blocks; None where there is none.
    """

    patch: nn.Conv2d | ConvStem
    patch_size: tuple[int, int]
    grid: tuple[int, int]
    first: Tensor | None
    positions: Tensor
    norm: nn.LayerNorm | None


@dataclass(frozen=True)
class BlockParts:
    """One pre-norm transformer block: `x + out(attention)`, then `x + mlp(x)`.

    Attributes:
        heads: Attention heads.
        ln_1: Before the attention.
        qkv_weight: Rows of Q, K and V, [3 C_v, C_v].
        qkv_bias: [3 C_v].
        out: Output projection, `Project_l` of eq. 8.
        ln_2: Before the feed-forward part.
        fc: First layer of the feed-forward part.
        activation: After `fc`, or after `gate` where there is one.
        proj: Last layer of the feed-forward part.
        inner: Layer norm of the attention's answer before `out` (EVA-02).
        gate: `activation(gate(x)) * fc(x)` in place of `activation(fc(x))` (SwiGLU of EVA-02).
        hidden_norm: Layer norm before `proj` (EVA-02).
        rotation: Rotary positions of Q and K; V is never rotated.
    """

    heads: int
    ln_1: nn.LayerNorm
    qkv_weight: Tensor
    qkv_bias: Tensor
    out: nn.Linear
    ln_2: nn.LayerNorm
    fc: nn.Linear
    activation: nn.Module
    proj: nn.Linear
    inner: nn.LayerNorm | None = None
    gate: nn.Linear | None = None
    hidden_norm: nn.LayerNorm | None = None
    rotation: Rotation | None = None


@dataclass(frozen=True)
class PoolParts:
    """A pooling head of attention (MAP): one learned query reads all tokens.

    Attributes:
        heads: Attention heads.
        query: The query after its projection, [C_v].
        kv_weight: Rows of K and V, [2 C_v, C_v].
        kv_bias: [2 C_v].
        out: Output projection.
        norm: Before the feed-forward part.
        fc: Its first layer.
        activation: Between its layers.
        proj: Its last layer.
    """

    heads: int
    query: Tensor
    kv_weight: Tensor
    kv_bias: Tensor
    out: nn.Linear
    norm: nn.LayerNorm
    fc: nn.Linear
    activation: nn.Module
    proj: nn.Linear


@dataclass(frozen=True)
class FeatureParts:
    """From the last block's tokens to the joint space of images and texts.

    Attributes:
        norm: Layer norm after the blocks.
        pool: Pooling head; None where the class token is the global feature.
        proj: Projection, [C_v, C]; None where the tower's own width is the joint space's.
        bias: Of the projection, [C], or None.
    """

    norm: nn.LayerNorm
    pool: PoolParts | None
    proj: nn.Parameter | None
    bias: nn.Parameter | None = None


class TowerAdapter(Protocol):
    """An image tower, taken apart. Parameters are shared wherever their form allows."""

    @property
    def tokens(self) -> TokenParts:
        """How its tokens are made."""
        ...

    def blocks(self, grid: tuple[int, int]) -> list[BlockParts]:
        """Its blocks, for a grid of (rows, columns) patches, which rotary positions depend on."""
        ...

    @property
    def feature(self) -> FeatureParts:
        """How its global feature is made."""
        ...


def halves(channels: int) -> Tensor:
    """Order that puts interleaved pairs (0, 1), (2, 3) ... into two halves: int64 [channels]."""
    return torch.cat([torch.arange(0, channels, 2), torch.arange(1, channels, 2)])


def refuse(applies: bool, reason: str) -> None:
    """Refuses a tower for a reason, if that applies to it.

    Args:
        applies: Whether it does.
        reason: What of the tower does not suit, as a clause.

    Raises:
        CheckpointError: It does.
    """
    if applies:
        raise unsuited(reason)


def unsuited(reason: str) -> CheckpointError:
    """The error for a tower of which V-V attention cannot be had, for this reason."""
    return CheckpointError(
        f"the image tower does not suit V-V attention: {reason}; `kanoclip-export --list-backbones` shows those that do"
    )
