"""The stem's tokens and descriptors against plain definitions of them."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from kanoclip.runtime.errors import CheckpointError
from kanoclip.train.backbones import seeded_clip
from kanoclip.train.model.kanoclip import to_pixels
from kanoclip.train.model.stem.efficientnet import Variant
from kanoclip.train.model.stem.stem import SHARPNESS, ConvStem, StemConfig, StemFeatures

CONFIG = StemConfig(Variant.LITE0, 264)
WIDTH = 48


@pytest.fixture(scope="module")
def stem(lively_stem):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return lively_stem(ConvStem(CONFIG, WIDTH, (64, 96))).eval()


@pytest.fixture
def features(stem, normal):
    return stem.read_scaled(normal(2, 3, 64, 96))


def unlikeness_by_loops(directions, grid):
    """The docstring's formula, patch by patch, in float64: [P, len(SHARPNESS)]."""
    rows = []
    for i in range(len(directions)):
        far = [
            j
            for j in range(len(directions))
            if max(abs(i // grid[1] - j // grid[1]), abs(i % grid[1] - j % grid[1])) > 1
        ]
        cosines = [float(directions[i].double() @ directions[j].double()) for j in far]
        rows.append([1 - math.log(sum(math.exp(b * (s - 1)) for s in cosines) / len(far)) / b - 1 for b in SHARPNESS])
    return torch.tensor(rows, dtype=torch.float64)


def test_unlikeness_is_its_formula(stem, normal):
    directions = F.normalize(normal(2, 24, 16) + 3, dim=-1)  # nearer than the sharpest kind's end at 0.43
    got = stem.unlikeness(directions)
    kinds = len(SHARPNESS)
    assert got.shape == (2, 24, 2 * kinds)
    for image in range(2):
        want = unlikeness_by_loops(directions[image], stem.grid)
        torch.testing.assert_close(got[image, :, :kinds].double() / 10, want, rtol=1e-4, atol=1e-5)
        centred = want - want.mean(0)
        spread = centred.square().mean(0).sqrt()
        torch.testing.assert_close(got[image, :, kinds:].double(), centred / (spread + 0.02), rtol=1e-3, atol=1e-3)


def test_a_patch_that_repeats_is_near_zero_and_a_unique_one_far(stem):
    directions = F.one_hot(torch.zeros(24, dtype=torch.long), 16).float()
    directions[13] = F.one_hot(torch.tensor(5), 16).float()
    values = stem.unlikeness(directions[None])[0]
    others = [i for i in range(24) if i != 13]
    assert values[others, : len(SHARPNESS)].abs().max() < 0.2
    ends = [min(10.0, 10 * 12 * math.log(10) / beta) for beta in SHARPNESS]  # 1e-12 is added under the logarithm
    assert values[13, : len(SHARPNESS)].tolist() == pytest.approx(ends, rel=1e-3)
    assert values[13, len(SHARPNESS) :].min() > 3 > values[others, len(SHARPNESS) :].max()


def test_neighbours_do_not_count(stem):
    """A defect over two cells has its own like beside it, and is as unlike as one alone; afar it is not."""
    directions = F.one_hot(torch.zeros(24, dtype=torch.long), 16).float()
    strange = F.one_hot(torch.tensor(5), 16).float()

    def value(second):
        changed = directions.clone()
        changed[[0, second]] = strange
        return float(stem.unlikeness(changed[None])[0, 0, 0])

    assert value(0) == pytest.approx(value(1), abs=1e-4) == pytest.approx(value(7), abs=1e-4)
    assert value(2) < 0.2 * value(0)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-6, 1e-2, 1.0]))
def test_unlikeness_is_finite_and_has_a_finite_gradient(stem, seed, spread):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.ones(24, 16) + spread * torch.randn(24, 16, generator=generator)
    drawn.requires_grad_(True)
    values = stem.unlikeness(F.normalize(drawn, dim=-1)[None])
    values.sum().backward()
    assert values.isfinite().all() and drawn.grad.isfinite().all()
    assert values[..., : len(SHARPNESS)].min() > -0.01


@pytest.mark.parametrize("value", [0, 127, 255])
def test_a_constant_image_has_finite_tokens_and_descriptors(stem, value):
    frame = torch.full((1, 64, 96, 3), value, dtype=torch.uint8)
    features = stem.read(to_pixels(frame))
    (tokens, distance), descriptors = stem(features), stem.descriptor(features)
    assert distance.isfinite().all()
    assert tokens.isfinite().all() and descriptors.isfinite().all()
    assert tokens.shape == (1, 24, WIDTH)


def test_a_constant_trunk_is_calm(stem):
    """All patches alike to the last bit: nothing is unlike, and nothing is divided by nothing."""
    values = stem.unlikeness(F.normalize(torch.ones(1, 24, 16), dim=-1))
    assert values.abs().max() < 1e-3


def test_pixels_are_read_in_the_trunks_own_normalisation(stem):
    frame = torch.randint(0, 256, (1, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    own = (frame.flip(-1).permute(0, 3, 1, 2).float() - 127) / 128
    got, want = stem.read(to_pixels(frame)), stem.read_scaled(own)
    for name in ("pooled", "fine", "middle", "coarse"):
        one, other = getattr(got, name), getattr(want, name)
        torch.testing.assert_close(one, other, rtol=0, atol=2e-4 * float(other.abs().max()))


def test_stages_are_gathered_cell_by_cell(stem, features):
    gathered = stem.gather(features)
    channels = [24 * 2, 40 * 4, 80 + 112, 192]
    assert gathered.shape == (2, 24, sum(channels))
    pooled, fine, middle, _ = gathered.split(channels, dim=-1)
    for row, column in ((0, 0), (2, 5), (3, 1)):
        cell = row * 6 + column
        assert torch.equal(pooled[:, cell], features.pooled[:, :, row, column])
        assert torch.equal(middle[:, cell], features.middle[:, :, row, column])
        four = features.fine[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flatten(1)
        assert torch.equal(fine[:, cell], four)


def test_pooling_takes_mean_and_maximum_of_a_token(stem, normal):
    pixels = normal(1, 3, 64, 96)
    s4 = stem.trunk(pixels)[0]
    pooled = stem.read_scaled(pixels).pooled
    cell = s4[0, :, 4:8, 8:12].flatten(1)
    torch.testing.assert_close(pooled[0, :24, 1, 2], cell.mean(1))
    assert torch.equal(pooled[0, 24:, 1, 2], cell.amax(1))


def test_tokens_are_the_projection_of_directions_and_unlikeness(stem, features):
    standardised = (stem.gather(features) - stem.mean) / stem.std
    torch.testing.assert_close(stem.standardised(features), standardised)
    directions = F.normalize(standardised, dim=-1)
    seen = torch.cat([directions * 592**0.5, stem.unlikeness(directions)], dim=-1)
    torch.testing.assert_close(stem.compare(standardised), seen)
    tokens, distance = stem(features)
    assert torch.equal(distance, stem.unlikeness(directions)[..., len(SHARPNESS) // 2])
    assert tokens.shape == (2, 24, WIDTH) and tokens.isfinite().all() and tokens.std() > 0.01
    torch.testing.assert_close(tokens, F.linear(seen, stem.token_project.weight, stem.token_project.bias))


def test_descriptors_are_unit_rows_on_a_grid_twice_as_fine(stem, features):
    assert stem.grid == (4, 6) and stem.descriptor_grid == (8, 12)
    descriptors = stem.descriptor(features)
    assert descriptors.shape == (2, 96, 264) and descriptors.dtype == torch.float32
    torch.testing.assert_close(descriptors.norm(dim=-1), torch.ones(2, 96))
    assert descriptors.std(dim=1).mean() > 1e-3


def test_projecting_before_upsampling_is_projecting_after(stem, features):
    def up(part):
        return F.interpolate(part, size=stem.descriptor_grid, mode="bilinear", align_corners=False)

    stacked = torch.cat([features.fine, up(features.middle), up(features.coarse)], dim=1).flatten(2).transpose(1, 2)
    standardised = (stacked - stem.descriptor_mean) / stem.descriptor_std
    plain, coarse = standardised.split([232, 192], dim=-1)
    want = F.normalize(torch.cat([plain, coarse @ stem.descriptor_basis.T], dim=-1), dim=-1)
    torch.testing.assert_close(stem.descriptor(features), want, rtol=1e-4, atol=1e-5)


def test_another_size_shares_everything_but_the_grid(stem, normal):
    other = stem.at_size((96, 64))
    assert stem.at_size((64, 96)) is stem
    assert other.grid == (6, 4) and other.far.shape == (24, 24) and not torch.equal(other.far, stem.far)
    assert {id(p) for p in other.parameters()} == {id(p) for p in stem.parameters()}
    for name in ("mean", "std", "descriptor_mean", "descriptor_std", "descriptor_basis"):
        assert other.get_buffer(name) is stem.get_buffer(name)
    assert other.state_dict().keys() == stem.state_dict().keys()
    assert other(other.read_scaled(normal(1, 3, 96, 64)))[0].shape == (1, 24, WIDTH)


@pytest.mark.parametrize("size", [(80, 64), (64, 48), (32, 32), (272, 256)])
def test_sizes_that_the_trunk_cannot_halve_are_refused(stem, size):
    with pytest.raises(CheckpointError, match=f"image size {size[0]}x{size[1]} .*multiples of 32") as caught:
        stem.at_size(size)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(32, 64), (64, 32)])
def test_every_patch_of_the_smallest_image_has_others_to_be_compared_with(size):
    far = ConvStem(CONFIG, 8, size).far
    torch.testing.assert_close(far.sum(1), torch.ones(len(far)))


def test_a_configuration_makes_a_backbone_with_its_stem(make_stem_backbone):
    clip = seeded_clip(make_stem_backbone("small-stem"))
    stem = clip.visual.conv1
    assert isinstance(stem, ConvStem) and stem.config == CONFIG
    assert stem.token_project.out_features == 64 and stem.grid == (4, 4)
    assert not any(parameter.requires_grad for parameter in stem.parameters())
    assert {"visual.conv1.mean", "visual.conv1.trunk.first.conv.weight"} <= set(clip.state_dict())
    assert StemConfig(Variant.LITE1).descriptor_channels == 384


def test_what_training_caches_is_all_that_the_stem_reads(stem, features):
    kept = StemFeatures(features.pooled, features.fine, features.middle, features.coarse)
    assert torch.equal(stem(kept)[0], stem.project(stem.compare(stem.standardised(features))))
