from __future__ import annotations

import copy

import pytest
import torch

from kanoclip.export.frame_front import SHIFT, PatchFront, StemFront, fold_preprocessing
from kanoclip.train.model.kanoclip import to_pixels


def frames(batch: int, size=(48, 48), seed=0):
    return torch.randint(0, 256, (batch, *size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_folding_equals_convolution_over_normalised_rgb():
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(3, 10, 8, stride=8, bias=False).double()
    frame = frames(2)
    matrix, bias = fold_preprocessing(convolution.weight.detach())
    blocks = (frame.double() - SHIFT).unflatten(2, (6, 8)).unflatten(1, (6, 8))
    patches = blocks.transpose(2, 3).flatten(3).flatten(1, 2)
    folded = patches @ matrix.double() + bias.double()
    wanted = convolution(to_pixels(frame).double()).flatten(2).transpose(1, 2)
    torch.testing.assert_close(folded, wanted, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("size", [(48, 48), (40, 64)])
def test_patches_of_the_bytes_are_the_towers_tokens(make_tiny, size):
    tower = make_tiny(size=size).model.tower
    front = PatchFront(tower, torch.float32)
    frame = frames(2, size)
    tokens, distance, features = front(frame.float() - front.shift)
    assert features is None and distance is None
    torch.testing.assert_close(tokens, tower.embed(to_pixels(frame)), rtol=0, atol=1e-5)
    image = tower.encode(tokens)
    torch.testing.assert_close(front.describe(tower, image, None), tower.describe(to_pixels(frame)), rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (96, 64)])
def test_the_stem_reads_the_bytes_as_the_tower_reads_pixels(make_tiny_stem, size):
    """At the border too: zeros of the padding are 127 before the shift, in both."""
    tower = make_tiny_stem(size=size).model.tower
    front = StemFront(copy.deepcopy(tower))
    frame = frames(2, size)
    tokens, distance, features = front(frame.float() - front.shift)
    assert distance.shape == (2, tower.grid[0] * tower.grid[1]) and distance.isfinite().all()
    wanted = tower.stem.read(to_pixels(frame))
    for name in ("pooled", "fine", "middle", "coarse"):
        got, want = getattr(features, name), getattr(wanted, name)
        torch.testing.assert_close(got, want, rtol=0, atol=3e-4 * float(want.abs().max()))
    embedded = tower.embed(to_pixels(frame))
    torch.testing.assert_close(tokens, embedded, rtol=0, atol=3e-4 * float(embedded.abs().max()))
    got, want = front.describe(tower, None, features), tower.describe(to_pixels(frame))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-4)


def test_folding_the_stem_is_exact(tiny_stem):
    """Division by 128 and another order of channels change no bit of a weight's fraction."""
    tower = tiny_stem.model.tower
    front = StemFront(copy.deepcopy(tower))
    weight, folded = tower.stem.trunk.first.conv.weight, front.stem.trunk.first.conv.weight
    assert torch.equal(folded.flip(1) * 128, weight) and front.shift == 127
    assert not any(parameter.requires_grad for parameter in front.parameters())


@torch.no_grad()
@pytest.mark.parametrize("value", [0, 127, 255])
def test_even_frames_at_the_ends_of_the_range(tiny_stem, value):
    tower = tiny_stem.model.tower
    front = StemFront(copy.deepcopy(tower))
    frame = torch.full((1, 64, 64, 3), value, dtype=torch.uint8)
    _, _, features = front(frame.float() - front.shift)
    wanted = tower.stem.read(to_pixels(frame)).coarse
    torch.testing.assert_close(features.coarse, wanted, rtol=0, atol=3e-4 * float(wanted.abs().max()))
