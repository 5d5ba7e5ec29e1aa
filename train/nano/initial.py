"""First values of the image tower that spare it what a short run would spend its first thousands of steps on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from torch import Tensor, nn

from kanoclip.train.model.kanoclip import to_pixels
from kanoclip.train.nano.scene import Recipe, generate

_SAMPLES = 48
"""Generated pictures whose statistics set the strength of each filter."""
_CHROMA = 0.125
"""Share of the filters for each of the two colour differences; the rest sees brightness."""
_ALIKE, _NOISE = 0.7, 0.7
_AGAINST, _LOOSE = 0.4, 0.4


@torch.no_grad()
def prepare(visual: open_clip.transformer.VisionTransformer, seed: int) -> None:
    """Gives a plain ViT whitened cosine filters and attention that begins with what is alike.

    - **Patch embedding**: a patch's lowest cosine frequencies, of brightness and of two colour differences, each with
      the same spread over generated pictures. Random filters see little but the mean of a patch, which is thousands
      of times stronger than a scratch in it.
    - **Attention** (mimetic initialisation, Trockman and Kolter 2023): `W_q^T W_k` near the identity, `W_out W_v` near
      minus the identity, so that a token first looks at tokens like itself and takes what they share away.

    Args:
        visual: Changed in place.
        seed: Of the random part and of the pictures.
    """
    random = torch.Generator().manual_seed(seed)
    width, _, side, _ = visual.conv1.weight.shape
    filters = _cosines(side, width)
    recipe = Recipe(size=max(4 * side, 64))
    frames = torch.stack([torch.from_numpy(generate(recipe, seed, index).image) for index in range(_SAMPLES)])
    spread = nn.functional.conv2d(to_pixels(frames), filters, stride=side).transpose(0, 1).flatten(1).std(dim=1)
    visual.conv1.weight.copy_(filters / (spread + 0.1 * spread.median())[:, None, None, None])
    for block in visual.transformer.resblocks:
        _mimic(block.attn, random)


def _cosines(side: int, count: int) -> Tensor:
    """The lowest frequencies of the 2-D DCT for each colour axis: float32 [count, 3, side, side], RGB."""
    steps = (np.arange(side) + 0.5) * np.pi / side
    waves = np.cos(np.arange(side)[:, None] * steps) * np.sqrt(2 / side)
    waves[0] /= np.sqrt(2)
    order = sorted((u * u + v * v, u, v) for u in range(side) for v in range(side))
    axes = np.array([[1, 1, 1], [1, -1, 0], [1, 1, -2]], np.float64)
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    chroma = int(count * _CHROMA)
    filters: list[npt.NDArray[np.float64]] = []
    for axis, many in zip(axes, (count - 2 * chroma, chroma, chroma), strict=True):
        filters += [axis[:, None, None] * np.outer(waves[u], waves[v]) for _, u, v in order[:many]]
    return torch.from_numpy(np.stack(filters)).float()


def _mimic(attention: nn.MultiheadAttention, random: torch.Generator) -> None:
    width, heads = attention.embed_dim, attention.num_heads
    each = width // heads
    query, key, value = attention.in_proj_weight.chunk(3)
    for head in range(heads):
        rows = slice(head * each, (head + 1) * each)
        product = _NOISE * torch.randn(width, width, generator=random) / width**0.5 + _ALIKE * torch.eye(width)
        query[rows], key[rows] = _factors(product, each)
    product = _LOOSE * torch.randn(width, width, generator=random) / width**0.5 - _AGAINST * torch.eye(width)
    outer, inner = _factors(product, width)
    attention.out_proj.weight.copy_(outer.T)
    value.copy_(inner)


def _factors(product: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(A, B), each [rank, width], with A^T B the best approximation of a product of that rank."""
    left, values, right = torch.linalg.svd(product)
    root = values[:rank].sqrt()[:, None]
    return left[:, :rank].T * root, right[:rank] * root
