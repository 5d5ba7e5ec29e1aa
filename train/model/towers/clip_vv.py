"""CLIP-VV: the frozen CLIP image tower with a second, local-aware path of V-V attention (section 2.3, eq. 4-8)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kanoclip.runtime.errors import CheckpointError
from kanoclip.train.model.layers import attention
from kanoclip.train.model.stem.stem import ConvStem
from kanoclip.train.model.towers.adapters import adapt
from kanoclip.train.model.towers.blocks import (
    AttentionPool,
    Block,
    FinalBlock,
    GlobalToken,
    as_parameter,
    share_layer_norm,
)

STAGES = 4
DESCRIPTOR_CHANNELS = 384
"""D, most channels of a descriptor: a reference memory of 1,024 rows is 1.5 MB then."""


def tap_blocks(depth: int) -> tuple[int, ...]:
    """Numbers (from 1) of the blocks after which the four stages are read: ceil(i * depth / 4)."""
    return tuple(math.ceil(i * depth / STAGES) for i in range(1, STAGES + 1))


@dataclass(frozen=True)
class Normalisation:
    """What a tower's weights expect of pixels: (value / 255 - mean) / std, for R, G and B."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


CLIP_PIXELS = Normalisation(open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
"""OpenAI's, and of most CLIPs."""


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
        visual: nn.Module,
        size: tuple[int, int],
        *,
        vv: bool = True,
        global_token: GlobalToken = "original",
        normalisation: Normalisation = CLIP_PIXELS,
    ) -> None:
        """Takes over an image tower; its parameters are shared and frozen.

        Args:
            visual: Of an open_clip model: a ViT of its own, or one of timm's.
            size: (height, width) in pixels; multiples of the patch size. Positional embeddings are resized to it.
            vv: False leaves the local-aware path out and reads the original path (table 3).
            global_token: Whose class token, or tokens under the pooling head, is I_G: the original path's, or the
                local-aware path's (the paper's letter).
            normalisation: What its weights expect of pixels.

        Raises:
            CheckpointError: V-V attention cannot be had of the tower, or the size does not divide into patches.
        """
        super().__init__()
        adapter = adapt(visual)
        tokens, feature = adapter.tokens, adapter.feature
        patch_h, patch_w = tokens.patch_size
        if min(size) < 1 or size[0] % patch_h or size[1] % patch_w:
            raise CheckpointError(f"image size {size[0]}x{size[1]} is not a multiple of the patch size {patch_h}")
        self.size = size
        self.grid = (size[0] // patch_h, size[1] // patch_w)
        self.vv, self.global_token, self.normalisation = vv, global_token, normalisation
        self.stem = tokens.patch.at_size(size) if isinstance(tokens.patch, ConvStem) else None
        self.patch_embedding = None if isinstance(tokens.patch, ConvStem) else tokens.patch
        first = tokens.first
        self.class_embedding = first if first is None else as_parameter(first)
        self.prefix = 0 if first is None else 1
        positions = resize_positional_embedding(tokens.positions.detach(), tokens.grid, self.grid, self.prefix)
        self.positional_embedding = nn.Parameter(positions)
        self.width = int(positions.shape[1])
        self.ln_pre = share_layer_norm(tokens.norm) if tokens.norm is not None else nn.Identity()
        sources = adapter.blocks(self.grid)
        if len(sources) < STAGES:
            raise CheckpointError(f"the image tower has fewer than {STAGES} blocks, one for each stage")
        # A pooling head reads all tokens of the last block, which then runs in full.
        short = vv and feature.pool is None
        self.blocks = nn.ModuleList(Block(source) for source in (sources[:-1] if short else sources))
        self.final = FinalBlock(sources[-1], global_token) if short else None
        self.ln_post = share_layer_norm(feature.norm)
        self.pool = AttentionPool(feature.pool) if feature.pool is not None else None
        self.proj, self.proj_bias = feature.proj, feature.bias
        self.joint_width = self.width if self.proj is None else int(self.proj.shape[1])
        self.taps = tap_blocks(len(sources))
        self.vv_start = self.taps[0]
        basis = None if self.stem is not None else _descriptor_basis(2 * self.width)
        self.register_buffer("descriptor_basis", basis, persistent=False)
        self.requires_grad_(False)

    def embed(self, pixels: Tensor) -> Tensor:
        """Normalised RGB pixels [B, 3, H, W] -> tokens [B, N, C_v] with positions, before ln_pre (eq. 4)."""
        if self.stem is not None:
            return self.place(self.stem(self.stem.read(pixels))[0])
        assert self.patch_embedding is not None  # one of the two is there
        return self.place(self.patch_embedding(pixels).flatten(2).transpose(1, 2))

    def place(self, patches: Tensor) -> Tensor:
        """Patch tokens [B, P, C_v] -> with the class token, if any, in front and positions added, [B, N, C_v]."""
        if self.class_embedding is None:
            return patches + self.positional_embedding
        first = self.class_embedding.expand(patches.shape[0], 1, -1)
        return torch.cat([first, patches], dim=1) + self.positional_embedding

    def encode(self, tokens: Tensor, distance: Tensor | None = None) -> ImageFeatures:
        """Tokens from `embed` -> four stages of patch features and the global feature.

        The original path S_ori runs CLIP's blocks unchanged. From block vv_start on the local-aware path adds
        `S_l = Project_l(Attention(V_l, V_l, V_l)) + S_{l-1}` (eq. 8) with V_l from ln_1(S_ori[l-1]) and no MLP. Every
        step makes a new tensor: an in-place `+=` would make all taps the same storage.

        Args:
            tokens: [B, N, C_v]; N is P, and 1 more with a class token.
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
                taps.append(local[:, self.prefix :])
            if self.stem is None and number in self.taps[1:3]:
                middle.append(original[:, self.prefix :])
        read = local if self.vv and self.global_token == "local" else original
        if self.final is not None:
            v, finished = self.final(original)
            local = local + self.final.project(attention(v, v, v))
            taps.append(local[:, self.prefix :])
            read = finished if finished is not None else local
        return ImageFeatures(
            tuple(self.project(tap) for tap in taps), self.global_feature(read), tuple(middle), distance
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
        return 2 * self.width if self.descriptor_basis is None else DESCRIPTOR_CHANNELS

    def project(self, tokens: Tensor) -> Tensor:
        """Into the joint space, each token as if it were the only one: [B, N, C_v] -> [B, N, C].

        With a class token this is CLIP's own ln_post and projection; a pooling head reads each token alone.
        """
        normed = self.ln_post(tokens)
        return self._join(normed if self.pool is None else self.pool.each(normed))

    def global_feature(self, tokens: Tensor) -> Tensor:
        """I_G of the last block's tokens [B, N, C_v], of which a class token is the first: [B, C]."""
        if self.pool is None:
            return self.project(tokens[:, :1])[:, 0]
        return self._join(self.pool(self.ln_post(tokens)))

    def _join(self, x: Tensor) -> Tensor:
        if self.proj is None:
            return x
        projected: Tensor = x @ self.proj
        return projected if self.proj_bias is None else projected + self.proj_bias

    def forward(self, pixels: Tensor) -> ImageFeatures:
        """Normalised RGB pixels [B, 3, H, W] -> image features."""
        if self.stem is None:
            return self.encode(self.embed(pixels))
        patches, distance = self.stem(self.stem.read(pixels))
        return self.encode(self.place(patches), distance)


def resize_positional_embedding(
    embedding: Tensor, old: tuple[int, int], new: tuple[int, int], prefix: int = 1
) -> Tensor:
    """Resizes the grid part of a positional embedding as open_clip does (bicubic, antialiased).

    Args:
        embedding: [prefix + rows * columns, C_v], class token first.
        old: (rows, columns) it has.
        new: (rows, columns) wanted.
        prefix: Rows before the grid's: 1 for a class token.

    Returns:
        [prefix + new rows * new columns, C_v]; the class token's row unchanged.
    """
    if tuple(old) == tuple(new):
        return embedding
    first, grid = embedding[:prefix], embedding[prefix:]
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
