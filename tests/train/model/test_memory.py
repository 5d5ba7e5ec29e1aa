"""The reference memory in torch: what its formula says, and what the runtime's own arithmetic gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from kanoclip.runtime.detect.reference.fused import fuse, nearest
from kanoclip.runtime.detect.reference.memory import Fusion, make_tensors
from kanoclip.runtime.detect.reference.smoothing import smooth
from kanoclip.runtime.engines.inputs import MemoryTensors
from kanoclip.train.model.memory import MemoryFusion

GRID, SIZE, CHANNELS = (4, 8), (32, 64), 12
FUSION = Fusion(gain=6.0, offset=0.3, zero_gain=0.7, zero_offset=-1.5, shift=-0.5)


def drawn(seed, batch=2, rows=9):
    """Descriptors, zero-shot map and score, raw rows of a memory."""
    generator = torch.Generator().manual_seed(seed)
    descriptors = F.normalize(torch.randn(batch, GRID[0] * GRID[1], CHANNELS, generator=generator), dim=-1)
    zero_map = torch.rand(batch, *SIZE, generator=generator)
    rows = F.normalize(torch.randn(rows, CHANNELS, generator=generator), dim=-1)
    return descriptors, zero_map, torch.rand(batch, generator=generator), rows


def tensors(memory):
    return [torch.from_numpy(value) for value in memory.inputs().values()]


@given(seed=st.integers(0, 1000), share=st.floats(0, 0.9), rows=st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_distances_are_those_of_centred_vectors(seed, share, rows):
    descriptors, _, _, raw = drawn(seed, rows=rows)
    centre = share * descriptors.mean((0, 1))
    memory = make_tensors(raw.half().numpy(), centre.numpy(), FUSION)
    found = MemoryFusion(GRID, CHANNELS, SIZE).distance(descriptors, *tensors(memory)[:3])
    moved = F.normalize(descriptors - centre, dim=-1)
    near = (moved @ F.normalize(raw.half().float() - centre, dim=-1).T).amax(-1)
    torch.testing.assert_close(found, (1 - near).reshape(2, *GRID), atol=2e-5, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_the_runtime_computes(seed):
    descriptors, zero_map, zero_score, raw = drawn(seed)
    memory = make_tensors(raw.half().numpy(), (0.5 * descriptors.mean((0, 1))).numpy(), FUSION)
    maps, scores = MemoryFusion(GRID, CHANNELS, SIZE)(descriptors, zero_map, zero_score, *tensors(memory))
    distance = smooth(nearest(descriptors.numpy(), memory).reshape(-1, *GRID), SIZE)
    wanted_maps, wanted_scores = fuse(distance, zero_map.numpy(), memory.fusion)
    np.testing.assert_allclose(maps.numpy(), wanted_maps, atol=2e-5)
    np.testing.assert_allclose(scores.numpy(), wanted_scores, atol=2e-5)
    assert ((maps >= 0) & (maps <= 1)).all()


def test_without_a_memory_answers_are_the_same_bit_for_bit():
    descriptors, zero_map, zero_score, _ = drawn(0)
    zero_map[0, 0, :2] = torch.tensor([0.0, 1.0])
    maps, scores = MemoryFusion(GRID, CHANNELS, SIZE)(
        descriptors, zero_map, zero_score, *tensors(MemoryTensors.empty(CHANNELS).padded(16))
    )
    assert torch.equal(maps, zero_map) and torch.equal(scores, zero_score)


def test_padding_never_wins():
    descriptors, zero_map, zero_score, raw = drawn(1)
    memory = make_tensors(raw.half().numpy(), np.zeros(CHANNELS, np.float32), FUSION)
    fuse_them = MemoryFusion(GRID, CHANNELS, SIZE)
    plain = fuse_them(descriptors, zero_map, zero_score, *tensors(memory))
    padded = fuse_them(descriptors, zero_map, zero_score, *tensors(memory.padded(64)))
    for one, other in zip(plain, padded, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_half_precision_stays_close():
    descriptors, zero_map, zero_score, raw = drawn(2)
    memory = tensors(make_tensors(raw.half().numpy(), np.zeros(CHANNELS, np.float32), FUSION).padded(32))
    exact = MemoryFusion(GRID, CHANNELS, SIZE)(descriptors, zero_map, zero_score, *memory)
    half = MemoryFusion(GRID, CHANNELS, SIZE, torch.float16)(descriptors, zero_map, zero_score, *memory)
    for one, other in zip(exact, half, strict=True):
        torch.testing.assert_close(one, other, atol=1e-2, rtol=0)
