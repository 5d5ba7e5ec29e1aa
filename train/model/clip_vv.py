"""CLIP-VV: the frozen CLIP image tower with a second, local-aware path of V-V attention (section 2.3, eq. 4-8)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kanoclip.runtime.errors import CheckpointError
from kanoclip.train.model.layers import LayerNorm, attention, merge_heads, split_heads
from kanoclip.train.model.stem.stem import ConvStem

STAGES = 4
DESCRIPTOR_CHANNELS = 384
"""D, most channels of a descriptor: a reference memory of 1,024 rows is 1.5 MB then."""
GlobalToken = Literal["original", "local"]


def tap_blocks(depth: int) -> tuple[int, ...]:
    """Numbers (from 1) of the blocks after which the four stages are read: ceil(i * depth / 4)."""
    return tuple(math.ceil(i * depth / STAGES) for i in range(1, STAGES + 1))


@dataclass(frozen=True)
class ImageFeatures:
    """What the tower gives, in CLIP's joint space and not normalised.

    Attributes:
        patches: Four stages of patch tokens, each [B, P, C].
        global_token: Global feature I_G, [B, C].
        middle: Original-path patch tokens of the middle stages, each [B, P, C_v] and not normalised: what a plain
            ViT's descriptors are made of. Empty where a stem gives the descriptors.
        distance: A stem's measure of how unlike the rest of its image each patch is, float32 [B, P]; None without one.
    """

    patches: tuple[Tensor, ...]
    global_token: Tensor
    middle: tuple[Tensor, ...] = ()
    distance: Tensor | None = None


class Block(nn.Module):
    """One CLIP transformer block, its attention written out from CLIP's own weights.

    torch's nn.MultiheadAttention exports a fused operator that ONNX refuses, and hides V, which the local path needs.
    """

    def __init__(self, source: nn.Module) -> None:
        """Shares the parameters of an open_clip ResidualAttentionBlock; nothing is copied."""
        super().__init__()
        if not (isinstance(source.ls_1, nn.Identity) and isinstance(source.ls_2, nn.Identity)):
            raise CheckpointError("this image tower uses layer scale, which CLIP-VV does not implement")
        self.heads: int = source.attn.num_heads
        self.ln_1 = _share_layer_norm(source.ln_1)
        self.ln_2 = _share_layer_norm(source.ln_2)
        self.qkv_weight = source.attn.in_proj_weight
        self.qkv_bias = source.attn.in_proj_bias
        self.out = source.attn.out_proj
        self.fc, self.activation, self.proj = source.mlp.c_fc, source.mlp.gelu, source.mlp.c_proj

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised tokens [B, N, C] -> Q, K, V (eq. 7), each [B, heads, N, D]."""
        q, k, v = F.linear(x, self.qkv_weight, self.qkv_bias).chunk(3, dim=-1)
        return split_heads(q, self.heads), split_heads(k, self.heads), split_heads(v, self.heads)

    def project(self, heads: Tensor) -> Tensor:
        """Output projection (`Project_l` of eq. 8): [B, heads, N, D] -> [B, N, C]."""
        projected: Tensor = self.out(merge_heads(heads))
        return projected

    def mlp(self, x: Tensor) -> Tensor:
        """Feed-forward part with its layer norm, without the residual: [B, N, C] -> [B, N, C]."""
        projected: Tensor = self.proj(self.activation(self.fc(self.ln_2(x))))
        return projected

    def residual(self, x: Tensor, attended: Tensor) -> Tensor:
        """The block's two residual steps, given its attention's heads: [B, N, C]."""
        x = x + self.project(attended)
        return x + self.mlp(x)


class FinalBlock(Block):
    """The last block of a tower with a local-aware path, which needs V of all tokens and little else.

    Nothing reads the original path's patch tokens after it, so that path goes on for the class token alone, or ends
    here. The projections are split once, at construction: a slice of weights inside the graph would be cut for every
    frame.
    """

    def __init__(self, source: nn.Module, global_token: GlobalToken) -> None:
        """Shares the parameters of an open_clip ResidualAttentionBlock."""
        super().__init__(source)
        weight, bias = self.qkv_weight.detach(), self.qkv_bias.detach()
        del self.qkv_weight, self.qkv_bias
        width = weight.shape[1]
        self.v = _linear(weight[2 * width :], bias[2 * width :])
        self.q = self.k = None
        if global_token == "original":
            self.q = _linear(weight[:width], bias[:width])
            self.k = _linear(weight[width : 2 * width], bias[width : 2 * width])

    def forward(self, original: Tensor) -> tuple[Tensor, Tensor | None]:
        """Original path's tokens [B, N, C] -> V [B, heads, N, D], and its class token [B, 1, C] if it goes on."""
        normed = self.ln_1(original)
        v = split_heads(self.v(normed), self.heads)
        if self.q is None or self.k is None:
            return v, None
        # One query row more than is needed: TensorRT-RTX does not fuse attention of a single row over 8 heads or more.
        q, k = split_heads(self.q(normed[:, :2]), self.heads), split_heads(self.k(normed), self.heads)
        return v, self.residual(original[:, :1], attention(q, k, v)[:, :, :1])


class ClipVV(nn.Module):
    """The image tower.

    Attributes:
        size: (height, width) of the input in pixels.
        grid: (rows, columns) of patch tokens.
        taps: Block numbers, from 1, after which a stage is read.
        vv_start: First block that the local-aware path has, from 1 (AnomalyCLIP's DPAM-20 for 24 blocks: 6).
        stem: Convolutional stem in place of CLIP's patch convolution, or None.
    """

    descriptor_basis: Tensor | None

    def __init__(
        self,
        visual: open_clip.transformer.VisionTransformer,
        size: tuple[int, int],
        *,
        vv: bool = True,
        global_token: GlobalToken = "original",
    ) -> None:
        """Takes over an open_clip image tower; its parameters are shared and frozen.

        Args:
            visual: A plain ViT of open_clip.
            size: (height, width) in pixels; multiples of the patch size. Positional embeddings are resized to it.
            vv: False leaves the local-aware path out and reads the original path (table 3).
            global_token: Whose class token is I_G: the original path's, or the local-aware path's (the paper's letter).

        Raises:
            CheckpointError: The tower is not a plain CLIP ViT, or the size does not divide into patches.
        """
        super().__init__()
        self._refuse_unknown_tower(visual)
        patch_h, patch_w = visual.patch_size
        if min(size) < 1 or size[0] % patch_h or size[1] % patch_w:
            raise CheckpointError(f"image size {size[0]}x{size[1]} is not a multiple of the patch size {patch_h}")
        self.size = size
        self.grid = (size[0] // patch_h, size[1] // patch_w)
        self.vv, self.global_token = vv, global_token
        # With a stem, `conv1` is the stem: it stands in the same place of the same state dict.
        self.stem = visual.conv1.at_size(size) if isinstance(visual.conv1, ConvStem) else None
        self.patch_embedding = None if isinstance(visual.conv1, ConvStem) else visual.conv1
        self.class_embedding = visual.class_embedding
        self.positional_embedding = nn.Parameter(
            resize_positional_embedding(visual.positional_embedding.detach(), visual.grid_size, self.grid)
        )
        self.ln_pre = _share_layer_norm(visual.ln_pre)
        sources = list(visual.transformer.resblocks)
        self.blocks = nn.ModuleList(Block(source) for source in (sources[:-1] if vv else sources))
        self.final = FinalBlock(sources[-1], global_token) if vv else None
        self.ln_post = _share_layer_norm(visual.ln_post)
        self.proj = visual.proj
        self.taps = tap_blocks(len(sources))
        self.vv_start = self.taps[0]
        basis = None if self.stem is not None else _descriptor_basis(2 * visual.class_embedding.shape[0])
        self.register_buffer("descriptor_basis", basis, persistent=False)
        self.requires_grad_(False)

    @staticmethod
    def _refuse_unknown_tower(visual: nn.Module) -> None:
        plain = (
            isinstance(visual, open_clip.transformer.VisionTransformer)
            and visual.attn_pool is None
            and visual.pool_type == "tok"
            and not visual.final_ln_after_pool
            and isinstance(visual.patch_dropout, nn.Identity)
            and isinstance(visual.ln_pre, nn.LayerNorm)
            and all(isinstance(b, open_clip.transformer.ResidualAttentionBlock) for b in visual.transformer.resblocks)
        )
        if not plain:
            raise CheckpointError("the image tower is not a plain CLIP ViT (class token, pre-LN blocks): not supported")
        if len(visual.transformer.resblocks) < STAGES:
            raise CheckpointError(f"the image tower has fewer than {STAGES} blocks, one for each stage")

    def embed(self, pixels: Tensor) -> Tensor:
        """Normalised RGB pixels [B, 3, H, W] -> tokens [B, 1 + P, C_v] with positions, before ln_pre (eq. 4)."""
        if self.stem is not None:
            return self.place(self.stem(self.stem.read(pixels))[0])
        assert self.patch_embedding is not None  # one of the two is there
        return self.place(self.patch_embedding(pixels).flatten(2).transpose(1, 2))

    def place(self, patches: Tensor) -> Tensor:
        """Patch tokens [B, P, C_v] -> with the class token in front and positions added, [B, 1 + P, C_v]."""
        first = self.class_embedding.expand(patches.shape[0], 1, -1)
        return torch.cat([first, patches], dim=1) + self.positional_embedding

    def encode(self, tokens: Tensor, distance: Tensor | None = None) -> ImageFeatures:
        """Tokens from `embed` -> four stages of patch features and the global feature.

        The original path S_ori runs CLIP's blocks unchanged. From block vv_start on the local-aware path adds
        `S_l = Project_l(Attention(V_l, V_l, V_l)) + S_{l-1}` (eq. 8) with V_l from ln_1(S_ori[l-1]) and no MLP. Every
        step makes a new tensor: an in-place `+=` would make all taps the same storage.

        Args:
            tokens: [B, 1 + P, C_v].
            distance: A stem's value of each patch, [B, P], handed on to the head.
        """
        original = self.ln_pre(tokens)
        local = original
        taps: list[Tensor] = []
        middle: list[Tensor] = []
        for number, block in enumerate(self.blocks, start=1):
            q, k, v = block.qkv(block.ln_1(original))
            original = block.residual(original, attention(q, k, v))
            local = local + block.project(attention(v, v, v)) if self.vv and number >= self.vv_start else original
            if number in self.taps:
                taps.append(local[:, 1:])
            if self.stem is None and number in self.taps[1:3]:
                middle.append(original[:, 1:])
        first = original[:, :1]
        if self.final is not None:
            v, finished = self.final(original)
            local = local + self.final.project(attention(v, v, v))
            taps.append(local[:, 1:])
            first = finished if finished is not None else local[:, :1]
        return ImageFeatures(
            tuple(self.project(tap) for tap in taps), self.project(first)[:, 0], tuple(middle), distance
        )

    def middle_descriptor(self, image: ImageFeatures) -> Tensor:
        """A plain ViT's descriptors for a reference memory, from the original path's middle stages.

        Each stage is layer-normed without CLIP's parameters; both are joined, projected to at most
        `DESCRIPTOR_CHANNELS` and L2-normalised. V-V taps are the wrong features for it: solar cells are told apart by
        them at 49 where the original path's give 88 (image AUROC, 4 references).

        Args:
            image: From `encode`.

        Returns:
            float32 [B, P, D].

        Raises:
            CheckpointError: The tower has a stem, whose own descriptors are better.
        """
        if not image.middle:
            raise CheckpointError("a tower with a stem takes its descriptors from the stem")
        joined = torch.cat([F.layer_norm(part.float(), part.shape[-1:]) for part in image.middle], dim=-1)
        if self.descriptor_basis is not None:
            basis = self.descriptor_basis.to(image.middle[0].dtype)
            joined = joined.to(basis.dtype) @ basis
        return F.normalize(joined.float(), dim=-1)

    def describe(self, pixels: Tensor) -> Tensor:
        """Normalised RGB pixels [B, 3, H, W] -> descriptors, L2-normalised float32 [B, cells, D]."""
        if self.stem is not None:
            return self.stem.descriptor(self.stem.read(pixels))
        return self.middle_descriptor(self.encode(self.embed(pixels)))

    @property
    def descriptor_grid(self) -> tuple[int, int]:
        """(rows, columns) of the descriptors."""
        return self.grid if self.stem is None else self.stem.descriptor_grid

    @property
    def descriptor_channels(self) -> int:
        """D."""
        if self.stem is not None:
            return self.stem.config.descriptor_channels
        return 2 * int(self.class_embedding.shape[0]) if self.descriptor_basis is None else DESCRIPTOR_CHANNELS

    def project(self, tokens: Tensor) -> Tensor:
        """CLIP's own ln_post and projection into the joint space: [B, N, C_v] -> [B, N, C]."""
        projected: Tensor = self.ln_post(tokens) @ self.proj
        return projected

    def forward(self, pixels: Tensor) -> ImageFeatures:
        """Normalised RGB pixels [B, 3, H, W] -> image features."""
        if self.stem is None:
            return self.encode(self.embed(pixels))
        patches, distance = self.stem(self.stem.read(pixels))
        return self.encode(self.place(patches), distance)


def resize_positional_embedding(embedding: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Resizes the grid part of a positional embedding as open_clip does (bicubic, antialiased).

    Args:
        embedding: [1 + rows * columns, C_v], class token first.
        old: (rows, columns) it has.
        new: (rows, columns) wanted.

    Returns:
        [1 + new rows * new columns, C_v]; the class token's row unchanged.
    """
    if tuple(old) == tuple(new):
        return embedding
    first, grid = embedding[:1], embedding[1:]
    grid = grid.unflatten(0, (old[0], old[1])).permute(2, 0, 1)[None]
    grid = F.interpolate(grid, size=new, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([first, grid[0].permute(1, 2, 0).flatten(0, 1)])


def _descriptor_basis(channels: int) -> Tensor | None:
    """Orthonormal columns drawn by a seed, [channels, DESCRIPTOR_CHANNELS]; None where there are few channels already.

    A random projection keeps cosines without having seen an image (Johnson and Lindenstrauss), and there are no images
    at hand when a published CLIP is exported.
    """
    if channels <= DESCRIPTOR_CHANNELS:
        return None
    drawn = torch.randn(channels, DESCRIPTOR_CHANNELS, generator=torch.Generator().manual_seed(0))
    return torch.linalg.qr(drawn)[0].contiguous()


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight, linear.bias = nn.Parameter(weight), nn.Parameter(bias)
    return linear


def _share_layer_norm(source: nn.LayerNorm) -> LayerNorm:
    norm = LayerNorm(source.normalized_shape, eps=source.eps)
    norm.weight, norm.bias = source.weight, source.bias
    return norm
