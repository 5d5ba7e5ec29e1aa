"""Towers of timm, taken apart for CLIP-VV: its plain ViT, and `Eva` with rotary positions."""

from __future__ import annotations

import copy

import torch
from timm.layers import AttentionPoolLatent, Mlp, SwiGLU
from timm.layers.attention import Attention, AttentionRope
from timm.models.eva import Eva, EvaAttention, EvaBlock
from timm.models.vision_transformer import Block as TimmBlock
from timm.models.vision_transformer import VisionTransformer as TimmVit
from torch import Tensor, nn

from kanoclip.train.model.towers.parts import (
    BlockParts,
    FeatureParts,
    PoolParts,
    Rotation,
    TokenParts,
    halves,
    refuse,
)


class TimmTower:
    """A ViT of timm: SigLIP 2 (no class token, pooling head), MobileCLIP2-L (class token)."""

    def __init__(self, trunk: TimmVit) -> None:
        """Looks the tower through.

        Raises:
            CheckpointError: It is of another shape.
        """
        _check_trunk(trunk)
        for block in trunk.blocks:
            plain = isinstance(block, TimmBlock) and isinstance(block.attn, Attention) and type(block.mlp) is Mlp
            refuse(not plain, "its blocks are not plain pre-norm ones")
            extras = (block.ls1, block.ls2, block.attn.q_norm, block.attn.k_norm, block.attn.norm, block.mlp.norm)
            refuse(any(not isinstance(part, nn.Identity) for part in extras), "its blocks have extra scales or norms")
            refuse(block.attn.gate is not None, "its attention is gated")
        self.trunk = trunk

    @property
    def tokens(self) -> TokenParts:
        """Patches, a class token where there is one, learned positions."""
        return _trunk_tokens(self.trunk)

    def blocks(self, grid: tuple[int, int]) -> list[BlockParts]:
        """The grid decides nothing."""
        return [
            BlockParts(
                block.attn.num_heads,
                block.norm1,
                block.attn.qkv.weight,
                block.attn.qkv.bias,
                block.attn.proj,
                block.norm2,
                block.mlp.fc1,
                block.mlp.act,
                block.mlp.fc2,
            )
            for block in self.trunk.blocks
        ]

    @property
    def feature(self) -> FeatureParts:
        """The class token or the pooling head, then timm's `head`."""
        return _trunk_feature(self.trunk)


class EvaTower:
    """timm's `Eva`: EVA-02 (SwiGLU, inner norms) and PE-Core (pooling head), both with rotary positions."""

    def __init__(self, trunk: Eva) -> None:
        """Looks the tower through.

        Raises:
            CheckpointError: It is of another shape.
        """
        _check_trunk(trunk)
        refuse(trunk.rope is None or trunk.rope_mixed, "its rotary positions are not one table for all blocks")
        for block in trunk.blocks:
            plain = isinstance(block, EvaBlock) and isinstance(block.attn, EvaAttention | AttentionRope)
            refuse(not plain or type(block.mlp) not in (Mlp, SwiGLU), "its blocks are not plain pre-norm ones")
            scaled = block.gamma_1 is not None or block.gamma_2 is not None
            refuse(scaled, "its blocks use layer scale, which CLIP-VV does not implement")
            attn = block.attn
            normed = not (isinstance(attn.q_norm, nn.Identity) and isinstance(attn.k_norm, nn.Identity))
            refuse(normed or attn.gate is not None, "its queries are normalised or its attention is gated")
        self.trunk = trunk

    @property
    def tokens(self) -> TokenParts:
        """Patches, a class token, learned positions beside the rotary ones."""
        return _trunk_tokens(self.trunk)

    def blocks(self, grid: tuple[int, int]) -> list[BlockParts]:
        """Q and K of every head in halves, so that a rotation swaps them and no channel is picked one by one."""
        rotation = self._rotation(grid)
        return [self._block(block, rotation) for block in self.trunk.blocks]

    @property
    def feature(self) -> FeatureParts:
        """The class token or the pooling head, then timm's `head`."""
        return _trunk_feature(self.trunk)

    def _rotation(self, grid: tuple[int, int]) -> Rotation:
        rope = copy.deepcopy(self.trunk.rope)
        rope.update_feat_shape(list(grid))
        sin, cos = rope.get_embed().detach().float().chunk(2, dim=-1)
        if not rope.rotate_half:
            order = halves(sin.shape[-1]).to(sin.device)
            sin, cos = sin[:, order], cos[:, order]
        half = sin.shape[-1] // 2
        sin = torch.cat([-sin[:, :half], sin[:, half:]], dim=-1)
        prefix = self.trunk.num_prefix_tokens
        ones, zeros = cos.new_ones(prefix, 2 * half), sin.new_zeros(prefix, 2 * half)
        return Rotation(torch.cat([ones, cos]), torch.cat([zeros, sin]))

    def _block(self, block: EvaBlock, rotation: Rotation) -> BlockParts:
        attn, mlp = block.attn, block.mlp
        weight, bias = _qkv(attn)
        if not attn.rotate_half:
            weight, bias = _in_halves(weight, attn.num_heads), _in_halves(bias, attn.num_heads)
        gated = isinstance(mlp, SwiGLU)
        return BlockParts(
            attn.num_heads,
            block.norm1,
            weight,
            bias,
            attn.proj,
            block.norm2,
            mlp.fc1_x if gated else mlp.fc1,
            mlp.act,
            mlp.fc2,
            _norm_or_none(attn.norm),
            mlp.fc1_g if gated else None,
            _norm_or_none(mlp.norm),
            rotation,
        )


def _qkv(attn: nn.Module) -> tuple[Tensor, Tensor]:
    """Joined rows of Q, K and V of timm's attentions with rotary positions: [3 C, C] and [3 C]."""
    if attn.qkv is not None:
        weight = attn.qkv.weight.detach()
        parts = [attn.q_bias, attn.k_bias, attn.v_bias] if isinstance(attn, EvaAttention) else [attn.qkv.bias]
        none = any(part is None for part in parts)
        return weight, torch.zeros_like(weight[:, 0]) if none else torch.cat([part.detach() for part in parts])
    layers = (attn.q_proj, attn.k_proj, attn.v_proj)
    biases = [torch.zeros_like(layer.weight[:, 0]) if layer.bias is None else layer.bias for layer in layers]
    return torch.cat([layer.weight.detach() for layer in layers]), torch.cat([bias.detach() for bias in biases])


def _in_halves(rows: Tensor, heads: int) -> Tensor:
    """Rows of Q, K and V [3 C, ...] with each head's Q and K in halves; the products of Q and K stay what they are."""
    q, k, v = rows.chunk(3)
    order = halves(len(q) // heads).to(rows.device)
    q, k = (part.unflatten(0, (heads, -1))[:, order].flatten(0, 1) for part in (q, k))
    return torch.cat([q, k, v])


def _check_trunk(trunk: TimmVit | Eva) -> None:
    """What both kinds of timm's towers must have in common."""
    patch = trunk.patch_embed.proj if isinstance(trunk.patch_embed.proj, nn.Conv2d) else None
    refuse(
        patch is None,
        "its patches come from a convolutional stem of its own (such as MobileCLIP's), not from one "
        "convolution without overlap",
    )
    assert patch is not None
    refuse(patch.kernel_size != patch.stride or any(patch.padding), "its patches overlap")
    refuse(trunk.num_prefix_tokens > 1 or trunk.reg_token is not None, "it has register tokens")
    refuse(trunk.pos_embed is None, "it has no learned positions")
    cells = trunk.patch_embed.num_patches + trunk.num_prefix_tokens
    refuse(trunk.pos_embed.shape[1] != cells, "its class token has no position")
    refuse(trunk.global_pool not in ("token", "map"), f"its global feature is pooled by '{trunk.global_pool}'")
    refuse(not isinstance(trunk.norm, nn.LayerNorm), "it has no layer norm after the blocks")
    refuse(not isinstance(trunk.fc_norm, nn.Identity), "it has a layer norm after pooling")
    pool = trunk.attn_pool
    if trunk.global_pool == "map":
        plain = isinstance(pool, AttentionPoolLatent) and pool.latent_len == 1 and pool.pos_embed is None
        refuse(not plain or pool.mlp is None, "its pooling head is of another form")
        normed = not (isinstance(pool.q_norm, nn.Identity) and isinstance(pool.k_norm, nn.Identity))
        refuse(normed or not isinstance(pool.norm, nn.LayerNorm), "its pooling head is of another form")


def _trunk_tokens(trunk: TimmVit | Eva) -> TokenParts:
    first = None if trunk.cls_token is None else trunk.cls_token[0, 0]
    return TokenParts(
        trunk.patch_embed.proj,
        trunk.patch_embed.patch_size,
        trunk.patch_embed.grid_size,
        first,
        trunk.pos_embed[0],
        _norm_or_none(trunk.norm_pre),
    )


def _trunk_feature(trunk: TimmVit | Eva) -> FeatureParts:
    pool = None
    if trunk.global_pool == "map":
        source = trunk.attn_pool
        pool = PoolParts(
            source.num_heads,
            source.q(source.latent[0, 0]).detach(),
            source.kv.weight,
            source.kv.bias,
            source.proj,
            source.norm,
            source.mlp.fc1,
            source.mlp.act,
            source.mlp.fc2,
        )
    if not isinstance(trunk.head, nn.Linear):
        return FeatureParts(trunk.norm, pool, None)
    bias = None if trunk.head.bias is None else nn.Parameter(trunk.head.bias.detach())
    return FeatureParts(trunk.norm, pool, nn.Parameter(trunk.head.weight.detach().T), bias)


def _norm_or_none(norm: nn.Module) -> nn.LayerNorm | None:
    return norm if isinstance(norm, nn.LayerNorm) else None
