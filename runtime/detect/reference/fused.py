"""What the graph computes with a memory, in numpy: for values out of sample, and to hold engines against."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.detect.reference.smoothing import smooth
from kanoclip.runtime.engines.inputs import MemoryTensors

Floats = npt.NDArray[np.float32]
LEAST_SHARE = np.float32(1e-4)
"""A zero-shot map is clipped to [this, 1 - this] before its logit is taken."""
BLOCK = 4096
"""Descriptors that are compared with the rows at a time: 16 MiB of products for 1,024 rows."""


def nearest(descriptors: npt.NDArray[np.floating], tensors: MemoryTensors) -> Floats:
    """Each descriptor's distance to the memory: 1 - the largest cosine of centred vectors.

    Args:
        descriptors: Unit vectors, [N, P, D].
        tensors: The memory.

    Returns:
        float32 [N, P], in [0, 2].
    """
    listed = descriptors.reshape(-1, descriptors.shape[-1])
    found = np.empty(len(listed), np.float32)
    norm = tensors.centre @ tensors.centre
    for start in range(0, len(listed), BLOCK):
        x = listed[start : start + BLOCK].astype(np.float32)
        product = x @ tensors.rows.T
        product += tensors.bias
        length = np.sqrt(np.maximum(1 - 2 * (x @ tensors.centre) + norm, 1e-12))
        found[start : start + BLOCK] = 1 - product.max(1) / length
    return found.reshape(descriptors.shape[:-1])


def logits(zero_shot: Floats) -> Floats:
    """log(m / (1 - m)) of a zero-shot map, clipped as the graph does it."""
    clipped = np.clip(zero_shot, LEAST_SHARE, 1 - LEAST_SHARE)
    return np.asarray(np.log(clipped / (1 - clipped)), np.float32)


def fuse(distances: Floats, zero_shot: Floats, fusion: Floats) -> tuple[Floats, Floats]:
    """One map of two.

    Args:
        distances: Smoothed, float32 [N, H, W].
        zero_shot: float32 [N, H, W] in [0, 1].
        fusion: As `Fusion.numbers` gives it.

    Returns:
        Maps float32 [N, H, W] and scores float32 [N], both in [0, 1]; a score is its map's largest value.
    """
    _, gain, offset, zero_gain, zero_offset, shift = fusion[:6]
    logit = gain * (distances - offset) + zero_gain * (logits(zero_shot) - zero_offset) + shift
    with np.errstate(over="ignore"):  # exp of a large number is infinite, and its share 0, as it should be
        maps = np.asarray(1 / (1 + np.exp(-logit)), np.float32)
    return maps, maps.max((1, 2))


def fused(
    descriptors: npt.NDArray[np.floating], zero_shot: Floats, tensors: MemoryTensors, grid: tuple[int, int]
) -> tuple[Floats, Floats]:
    """Maps and scores with a memory, as the graph gives them.

    Args:
        descriptors: Unit vectors, [N, rows * columns, D].
        zero_shot: The maps without a memory, float32 [N, H, W] in [0, 1].
        tensors: The memory; an active one.
        grid: (rows, columns) of the descriptors.

    Returns:
        As `fuse`.
    """
    cells = nearest(descriptors, tensors).reshape(-1, *grid)
    return fuse(smooth(cells, (zero_shot.shape[1], zero_shot.shape[2])), zero_shot, tensors.fusion)
