"""The tower against the paper's equations 4-8 written as loops, and against open_clip itself."""

from __future__ import annotations

import copy
import math

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import resize_pos_embed
from torch import Tensor

from kanoclip.runtime.errors import CheckpointError
from kanoclip.train.backbones import seeded_clip
from kanoclip.train.model.towers.clip_vv import ClipVV, _descriptor_basis, resize_positional_embedding, tap_blocks

TINY_VIT_14 = {"patch_size": 14, "width": 32, "head_width": 16, "layers": 4}


def layer_norm(x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    centred = x - x.mean()
    return centred / torch.sqrt((centred**2).mean() + norm.eps) * norm.weight.double() + norm.bias.double()


def attend(queries: list[Tensor], keys: list[Tensor], values: list[Tensor], heads: int) -> list[Tensor]:
    """Eq. 4, head by head and token by token."""
    width = len(queries[0]) // heads
    answers = []
    for query in queries:
        parts = []
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            logits = [float(query[own] @ key[own]) * width**-0.5 for key in keys]
            top = max(logits)
            weights = [math.exp(logit - top) for logit in logits]
            parts.append(sum(w * value[own] for w, value in zip(weights, values, strict=True)) / sum(weights))
        answers.append(torch.cat(parts))
    return answers


@torch.no_grad()
def reference(visual, pixels: Tensor, *, vv: bool, global_token: str, quick: bool) -> tuple[list[Tensor], Tensor]:
    """Taps [P, C] and the global feature [C] of one image [3, H, W], in float64 from open_clip's own parameters."""

    def gelu(x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x) if quick else x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))

    patch = visual.patch_size[0]
    kernel = visual.conv1.weight.double().flatten(1)
    tokens = [visual.class_embedding.double()]
    for row in range(0, pixels.shape[1], patch):
        for column in range(0, pixels.shape[2], patch):
            tokens.append(kernel @ pixels[:, row : row + patch, column : column + patch].double().flatten())
    positions = visual.positional_embedding.double()
    original = [layer_norm(t + p, visual.ln_pre) for t, p in zip(tokens, positions, strict=True)]

    blocks = list(visual.transformer.resblocks)
    tap_numbers = [math.ceil(i * len(blocks) / 4) for i in (1, 2, 3, 4)]
    local, taps = None, []
    for number, block in enumerate(blocks, start=1):
        heads = block.attn.num_heads
        if vv and number == tap_numbers[0]:
            local = list(original)  # a copy of the original stream before block vv_start
        weight, bias = block.attn.in_proj_weight.double(), block.attn.in_proj_bias.double()
        qkv = [weight @ layer_norm(token, block.ln_1) + bias for token in original]  # eq. 7: S_ori[l-1]
        width = len(bias) // 3
        q, k, v = ([x[i * width : (i + 1) * width] for x in qkv] for i in range(3))
        out, out_bias = block.attn.out_proj.weight.double(), block.attn.out_proj.bias.double()
        if local is not None:
            local = [out @ a + out_bias + s for a, s in zip(attend(v, v, v, heads), local, strict=True)]  # eq. 8
        attended = [s + out @ a + out_bias for a, s in zip(attend(q, k, v, heads), original, strict=True)]
        original = []
        for token in attended:
            hidden = block.mlp.c_fc.weight.double() @ layer_norm(token, block.ln_2) + block.mlp.c_fc.bias.double()
            original.append(token + block.mlp.c_proj.weight.double() @ gelu(hidden) + block.mlp.c_proj.bias.double())
        if number in tap_numbers:
            taps.append(list(original if local is None else local)[1:])
    first = local[0] if local is not None and global_token == "local" else original[0]

    def joint(token: Tensor) -> Tensor:
        return layer_norm(token, visual.ln_post) @ visual.proj.double()

    return [torch.stack([joint(token) for token in tap]) for tap in taps], joint(first)


@pytest.mark.parametrize("global_token", ["original", "local"])
@pytest.mark.parametrize("vv", [True, False])
@pytest.mark.parametrize(("layers", "quick"), [(4, False), (7, True)])
def test_equals_the_papers_equations_written_as_loops(make_clip, normal, vv, global_token, layers, quick):
    clip = make_clip(image_size=(24, 32), layers=layers, quick_gelu=quick)
    pixels = normal(2, 3, 24, 32)
    tower = ClipVV(clip.visual, (24, 32), vv=vv, global_token=global_token)
    features = tower(pixels)
    for image in range(2):
        taps, first = reference(clip.visual, pixels[image], vv=vv, global_token=global_token, quick=quick)
        assert len(features.patches) == len(taps) == 4
        for got, expected in zip(features.patches, taps, strict=True):
            torch.testing.assert_close(got[image].double(), expected, rtol=2e-4, atol=2e-4)
        torch.testing.assert_close(features.global_token[image].double(), first, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("vv", [True, False])
@pytest.mark.parametrize("quick", [True, False])
def test_original_global_token_is_open_clips_encode_image(make_clip, normal, vv, quick):
    clip = make_clip(layers=6, quick_gelu=quick)
    pixels = normal(3, 3, 48, 48)
    got = ClipVV(clip.visual, (48, 48), vv=vv)(pixels).global_token
    with torch.no_grad():
        torch.testing.assert_close(got, clip.encode_image(pixels), rtol=1e-5, atol=1e-5)


def test_local_and_original_global_tokens_differ(clip, normal):
    pixels = normal(1, 3, 48, 48)
    original = ClipVV(clip.visual, (48, 48))(pixels).global_token
    local = ClipVV(clip.visual, (48, 48), global_token="local")(pixels).global_token
    assert (original - local).abs().max() > 1e-2


@pytest.mark.parametrize("vv", [True, False])
def test_four_taps_are_four_tensors(make_clip, normal, vv):
    tower = ClipVV(make_clip(layers=8).visual, (48, 48), vv=vv)
    seen = []
    tower.ln_post.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    taps = tower(normal(1, 3, 48, 48)).patches
    before_projection = seen[:4]
    assert len(taps) == 4 and len(seen) == 5
    for tensors in (taps, before_projection):
        assert len({t.untyped_storage().data_ptr() for t in tensors}) == 4
        for i in range(4):
            for j in range(i):
                assert (tensors[i] - tensors[j]).abs().max() > 1e-2
    kept = [tap.clone() for tap in taps]
    taps[1].add_(1)
    for index in (0, 2, 3):
        assert torch.equal(taps[index], kept[index])


@pytest.mark.parametrize(
    ("depth", "taps"),
    [
        (24, (6, 12, 18, 24)),
        (12, (3, 6, 9, 12)),
        (10, (3, 5, 8, 10)),
        (4, (1, 2, 3, 4)),
        (5, (2, 3, 4, 5)),
        (7, (2, 4, 6, 7)),
        (11, (3, 6, 9, 11)),
    ],
)
def test_tap_numbers(make_clip, depth, taps):
    assert tap_blocks(depth) == taps
    tower = ClipVV(make_clip(layers=depth, width=32, head_width=16).visual, (48, 48))
    assert tower.taps == taps
    assert tower.vv_start == taps[0]


@pytest.mark.parametrize(
    "vision",
    [
        {"ls_init_value": 0.1},
        {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2},
        {"pool_type": "avg"},
        {"final_ln_after_pool": True},
        {"no_ln_pre": True},
        {"patch_dropout": 0.5},
        {"qk_norm": True},
        {"layers": 3},
        {"layers": 1},
    ],
    ids=lambda vision: next(iter(vision.items()))[0] + str(next(iter(vision.values()))),
)
def test_refuses_towers_that_are_not_plain(make_clip, vision):
    with pytest.raises(CheckpointError) as caught:
        ClipVV(make_clip(**vision).visual, (48, 48))
    assert "\n" not in str(caught.value)
    assert "image tower" in str(caught.value)


def test_refuses_a_resnet():
    clip = open_clip.CLIP(
        64,
        {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        {"context_length": 8, "vocab_size": 50, "width": 64, "heads": 2, "layers": 1},
    )
    with pytest.raises(CheckpointError, match="image tower"):
        ClipVV(clip.visual, (64, 64))


@pytest.mark.parametrize("size", [(50, 48), (48, 47), (49, 49), (0, 48), (48, -8), (0, 0)])
def test_refuses_sizes_that_are_not_whole_patches(clip, size):
    with pytest.raises(CheckpointError, match=rf"{size[0]}x{size[1]}.*8"):
        ClipVV(clip.visual, size)


@pytest.mark.parametrize("vv", [True, False])
def test_is_frozen_and_shares_the_weights(clip, vv):
    tower = ClipVV(clip.visual, (48, 48), vv=vv)
    assert list(tower.parameters())
    assert not any(parameter.requires_grad for parameter in tower.parameters())
    theirs = {parameter.untyped_storage().data_ptr() for parameter in clip.visual.parameters()}
    assert {parameter.untyped_storage().data_ptr() for parameter in tower.parameters()} <= theirs


@pytest.mark.parametrize("native", [224, 336])
@pytest.mark.parametrize("size", [(224, 224), (336, 336), (518, 518), (336, 224), (28, 518)])
def test_positions_resize_as_open_clip_resizes_them(make_clip, native, size):
    clip = make_clip(image_size=native, **TINY_VIT_14)
    other = make_clip(image_size=size, **TINY_VIT_14)
    state = dict(clip.state_dict())
    resize_pos_embed(state, other)
    tower = ClipVV(clip.visual, size)
    expected = state["visual.positional_embedding"]
    assert tower.positional_embedding.shape == expected.shape == (1 + size[0] // 14 * size[1] // 14, 32)
    torch.testing.assert_close(tower.positional_embedding.data, expected, rtol=0, atol=1e-6)
    assert torch.equal(tower.positional_embedding[0], clip.visual.positional_embedding[0])


def test_whole_tower_at_another_size_is_open_clips(make_clip, normal):
    clip, other = make_clip(image_size=224, **TINY_VIT_14), make_clip(image_size=518, **TINY_VIT_14)
    state = dict(clip.state_dict())
    resize_pos_embed(state, other)
    other.load_state_dict(state)
    pixels = normal(1, 3, 518, 518)
    with torch.no_grad():
        expected = other.encode_image(pixels)
    torch.testing.assert_close(ClipVV(clip.visual, (518, 518))(pixels).global_token, expected, rtol=1e-5, atol=1e-5)


def test_positions_of_the_same_grid_are_untouched(normal):
    embedding = normal(1 + 6, 16)
    assert torch.equal(resize_positional_embedding(embedding, (2, 3), (2, 3)), embedding)
    turned = resize_positional_embedding(embedding, (2, 3), (3, 2))  # as many tokens, another grid
    assert turned.shape == embedding.shape and not torch.equal(turned, embedding)
    expected = F.interpolate(
        embedding[1:].T.reshape(1, 16, 2, 3), size=(3, 2), mode="bicubic", antialias=True, align_corners=False
    )
    torch.testing.assert_close(turned[1:], expected[0].flatten(1).T)


@pytest.mark.parametrize(("width", "heads", "channels"), [(64, 32, 128), (208, 52, 384)])
def test_a_plain_towers_descriptors_come_from_the_original_paths_middle_stages(
    make_clip, normal, width, heads, channels
):
    clip = make_clip(layers=8, width=width, head_width=heads)
    pixels = normal(2, 3, 48, 48)
    tower = ClipVV(clip.visual, (48, 48))
    got = tower.describe(pixels)
    assert tower.descriptor_grid == tower.grid == (6, 6) and tower.descriptor_channels == channels
    assert got.shape == (2, 36, channels) and got.dtype == torch.float32
    torch.testing.assert_close(got.norm(dim=-1), torch.ones(2, 36))
    # Blocks 4 and 6 of 8, as open_clip itself runs them.
    seen = []
    hooks = [clip.visual.transformer.resblocks[i].register_forward_hook(lambda *x: seen.append(x[2])) for i in (3, 5)]
    with torch.no_grad():
        clip.encode_image(pixels)
    for hook in hooks:
        hook.remove()
    joined = torch.cat([F.layer_norm(x[:, 1:], (width,)) for x in seen], dim=-1)
    if channels < 2 * width:
        identity = tower.descriptor_basis.T @ tower.descriptor_basis
        torch.testing.assert_close(identity, torch.eye(channels), rtol=0, atol=1e-5)
        joined = joined @ tower.descriptor_basis
    torch.testing.assert_close(got, F.normalize(joined, dim=-1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ClipVV(clip.visual, (48, 48), vv=False).describe(pixels), got)
    features = tower(pixels)
    assert torch.equal(tower.middle_descriptor(features), got), "the same from what a frame's encoding leaves"


def test_the_projection_of_descriptors_keeps_cosines(normal):
    basis = _descriptor_basis(2048)
    assert basis.shape == (2048, 384) and torch.equal(basis, _descriptor_basis(2048))
    assert _descriptor_basis(384) is None
    rows = F.normalize(normal(60, 2048), dim=-1)
    rows[1:] = F.normalize(rows[1:] + rows[0] * torch.linspace(0, 3, 59)[:, None], dim=-1)
    cosines, kept = rows @ rows[0], F.normalize(rows @ basis, dim=-1) @ F.normalize(rows[0] @ basis, dim=-1)
    assert (cosines - kept).abs().max() < 0.15


@pytest.fixture(scope="module")
def stem_clip(make_stem_backbone, lively_stem, shake):
    clip = seeded_clip(make_stem_backbone("small-stem"))
    shake(clip.visual.transformer)
    lively_stem(clip.visual.conv1)
    return clip


@pytest.mark.parametrize("vv", [True, False])
@pytest.mark.parametrize("global_token", ["original", "local"])
def test_a_tower_with_a_stem_runs_the_same_blocks_over_its_tokens(stem_clip, normal, vv, global_token):
    tower = ClipVV(stem_clip.visual, (64, 64), vv=vv, global_token=global_token)
    pixels = normal(2, 3, 64, 64)
    features = tower(pixels)
    assert tower.taps == (1, 2, 3, 4) and tower.patch_embedding is None and features.middle == ()
    assert [tuple(tap.shape) for tap in features.patches] == [(2, 16, 64)] * 4
    assert all(tap.isfinite().all() and tap.std() > 1e-3 for tap in features.patches)
    # The same blocks in a tower whose patch convolution is handed the stem's tokens.
    tokens, distance = tower.stem(tower.stem.read(pixels))
    assert torch.equal(features.distance, distance) and distance.shape == (2, 16)
    visual = copy.copy(stem_clip.visual)
    visual._modules = dict(visual._modules)
    visual.conv1 = _Given(tokens)
    plain = ClipVV(visual, (64, 64), vv=vv, global_token=global_token)
    want = plain(pixels)
    torch.testing.assert_close(features.global_token, want.global_token)
    for got, expected in zip(features.patches, want.patches, strict=True):
        torch.testing.assert_close(got, expected)
    torch.testing.assert_close(tower.place(tokens), tower.embed(pixels))


class _Given(torch.nn.Module):
    def __init__(self, tokens):
        super().__init__()
        self.tokens = tokens

    def forward(self, pixels):
        return self.tokens.transpose(1, 2).unflatten(2, (4, 4))


def test_a_tower_with_a_stem_describes_by_it(stem_clip, normal):
    tower = ClipVV(stem_clip.visual, (64, 64))
    pixels = normal(2, 3, 64, 64)
    assert tower.descriptor_grid == (8, 8) and tower.descriptor_channels == 264 and tower.descriptor_basis is None
    got = tower.describe(pixels)
    assert torch.equal(got, tower.stem.descriptor(tower.stem.read(pixels))) and got.shape == (2, 64, 264)
    with pytest.raises(CheckpointError, match="takes its descriptors from the stem"):
        tower.middle_descriptor(tower(pixels))


def test_a_tower_with_a_stem_takes_another_size_and_shares_the_weights(stem_clip, normal):
    tower = ClipVV(stem_clip.visual, (96, 64))
    assert tower.grid == (6, 4) == tower.stem.grid and tower.positional_embedding.shape == (25, 64)
    assert tower(normal(1, 3, 96, 64)).patches[0].shape == (1, 24, 64)
    assert tower.stem.trunk is stem_clip.visual.conv1.trunk
    assert not any(parameter.requires_grad for parameter in tower.parameters())
    with pytest.raises(CheckpointError, match=r"80x64 .*multiples of 32"):
        ClipVV(stem_clip.visual, (80, 64))
