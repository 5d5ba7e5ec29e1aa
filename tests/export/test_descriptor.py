from __future__ import annotations

import copy

import pytest
import torch

from kanoclip.export.descriptor import describe_tower
from kanoclip.train.model.kanoclip import to_pixels


@torch.no_grad()
def after_a_change(tower, name):
    """Digest, and whether the descriptors of a frame moved, after one tensor of the tower was changed."""
    changed = copy.deepcopy(tower)
    tensor = changed.state_dict()[name]
    tensor.add_(0.05 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1)))
    frame = torch.randint(0, 256, (1, *tower.size, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    moved = not torch.equal(changed.describe(to_pixels(frame)), tower.describe(to_pixels(frame)))
    return describe_tower(changed, "fp32").sha256, moved


NAMES = (
    "class_embedding",
    "positional_embedding",
    "patch_embedding.weight",
    "ln_pre.bias",
    "blocks.0.qkv_weight",
    "blocks.2.proj.weight",
    "blocks.3.fc.weight",
    "blocks.5.out.weight",
    "blocks.6.out.weight",
    "final.v.weight",
    "ln_post.weight",
    "proj",
)
STEM_NAMES = (
    "stem.trunk.first.conv.weight",
    "stem.trunk.groups.5.0.layers.2.conv.bias",
    "stem.descriptor_mean",
    "stem.descriptor_std",
    "stem.descriptor_basis",
    "stem.mean",
    "stem.token_project.weight",
    "blocks.0.qkv_weight",
    "positional_embedding",
    "proj",
)


@pytest.fixture(scope="module")
def deep(tiny):
    """A tower of 8 blocks, whose middle stages are not its last ones: blocks 4 and 6."""
    import open_clip

    from kanoclip.train.backbones import get_backbone
    from kanoclip.train.model.towers.clip_vv import ClipVV

    architecture = get_backbone("random-tiny").architecture()
    architecture["vision_cfg"]["layers"] = 8
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ClipVV(open_clip.CLIP(**architecture).visual.eval(), (48, 48))


@pytest.mark.parametrize("name", NAMES)
def test_a_plain_towers_digest_changes_with_what_decides_its_descriptors(deep, name):
    digest, moved = after_a_change(deep, name)
    assert (digest != describe_tower(deep, "fp32").sha256) == moved
    assert moved == (name not in NAMES[-4:])


@pytest.mark.parametrize("name", STEM_NAMES)
def test_a_stems_digest_changes_with_what_decides_its_descriptors(tiny_stem, name):
    tower = tiny_stem.model.tower
    digest, moved = after_a_change(tower, name)
    assert (digest != describe_tower(tower, "fp32").sha256) == moved == (name in STEM_NAMES[:5])


def test_the_head_and_the_paths_behind_do_not_change_it_and_the_size_does(make_tiny):
    first = make_tiny()
    digest = describe_tower(first.model.tower, "fp32").sha256
    with torch.no_grad():
        for parameter in first.model.head.parameters():
            parameter.add_(1)
    assert describe_tower(first.model.tower, "fp32").sha256 == digest
    assert describe_tower(make_tiny(vv=False).model.tower, "fp32").sha256 == digest
    assert describe_tower(make_tiny(global_token="local").model.tower, "fp32").sha256 == digest
    assert describe_tower(make_tiny(size=(48, 64)).model.tower, "fp32").sha256 != digest


def test_a_stems_size_changes_it(make_tiny_stem, tiny_stem):
    digest = describe_tower(tiny_stem.model.tower, "fp32").sha256
    assert describe_tower(make_tiny_stem(size=(64, 96)).model.tower, "fp32").sha256 != digest


def test_half_precision_shares_a_memory_and_eight_bits_have_their_own(tiny, tiny_stem):
    for tower in (tiny.model.tower, tiny_stem.model.tower):
        digests = {
            precision: describe_tower(tower, precision).sha256
            for precision in ("fp32", "fp16", "bf16", "int8", "int8-cpu", "fp8")
        }
        assert digests["fp32"] == digests["fp16"] == digests["bf16"]
        assert len(set(digests.values())) == 4
        assert all(len(digest) == 64 for digest in digests.values())


def test_grid_and_channels_are_those_of_the_descriptors(tiny, tiny_stem):
    for tower, grid, channels in ((tiny.model.tower, (6, 6), 128), (tiny_stem.model.tower, (8, 8), 264)):
        info = describe_tower(tower, "fp16")
        assert (tuple(info.grid), info.channels) == (grid, channels)
        assert tower.describe(torch.zeros(1, 3, *tower.size)).shape == (1, grid[0] * grid[1], channels)
