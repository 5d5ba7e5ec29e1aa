"""Every kind of tower against its own maker's forward pass, and its V-V path against a slow loop from the equations."""

from __future__ import annotations

import math

import open_clip
import pytest
import small_towers
import torch
from torch import Tensor

from kanoclip.runtime.errors import CheckpointError
from kanoclip.train.backbones import seeded_clip
from kanoclip.train.model.towers.adapters import adapt
from kanoclip.train.model.towers.clip_vv import ClipVV


@pytest.fixture(scope="module", params=small_towers.KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def clip(kind, shake):
    return small_towers.seeded(kind, shake)


def norm(x: Tensor, layer) -> Tensor:
    if isinstance(layer, torch.nn.Identity):
        return x
    centred = x - x.mean()
    return centred / torch.sqrt((centred**2).mean() + layer.eps) * layer.weight.double() + layer.bias.double()


def apply(x: Tensor, layer) -> Tensor:
    return layer.weight.double() @ x + (0 if layer.bias is None else layer.bias.double())


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def attend(queries, keys, values, heads: int) -> list[Tensor]:
    width = len(values[0]) // heads
    answers = []
    for query in queries:
        parts = []
        for own in (slice(h * width, (h + 1) * width) for h in range(heads)):
            weights = torch.softmax(torch.stack([query[own] @ key[own] for key in keys]) * width**-0.5, 0)
            parts.append(sum(w * value[own] for w, value in zip(weights, values, strict=True)))
        answers.append(torch.cat(parts))
    return answers


def turned(x: Tensor, table: Tensor, heads: int) -> Tensor:
    """Pairs (0, 1), (2, 3) ... of each head as complex numbers, turned by their angles."""
    sin, cos = table.double().chunk(2)
    angle = torch.complex(cos[::2], sin[::2])
    pairs = torch.view_as_complex(x.unflatten(0, (heads, -1, 2)).contiguous())
    return torch.view_as_real(pairs * angle).flatten()


def qkv(attn, token: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if attn.qkv is None:
        return tuple(apply(token, layer) for layer in (attn.q_proj, attn.k_proj, attn.v_proj))
    return apply(token, attn.qkv).chunk(3)


def mlp(part, x: Tensor) -> Tensor:
    if hasattr(part, "fc1_g"):
        gate = apply(x, part.fc1_g)
        hidden = gate * torch.sigmoid(gate) * apply(x, part.fc1_x)
    else:
        hidden = gelu(apply(x, part.fc1))
    return apply(norm(hidden, part.norm), part.fc2)


@torch.no_grad()
def reference(trunk, pixels: Tensor, global_token: str) -> tuple[list[Tensor], Tensor]:
    """Taps and global feature of one image in float64, token by token, from timm's own parameters."""
    convolution, prefix = trunk.patch_embed.proj, trunk.num_prefix_tokens
    patch, tokens = convolution.kernel_size[0], [] if trunk.cls_token is None else [trunk.cls_token[0, 0].double()]
    bias = 0 if convolution.bias is None else convolution.bias.double()
    for row in range(0, pixels.shape[1], patch):
        for column in range(0, pixels.shape[2], patch):
            window = pixels[:, row : row + patch, column : column + patch].double().flatten()
            tokens.append(convolution.weight.double().flatten(1) @ window + bias)
    positions = trunk.pos_embed[0].double()
    original = [norm(token + place, trunk.norm_pre) for token, place in zip(tokens, positions, strict=True)]
    rope = getattr(trunk, "rope", None)
    depth = len(trunk.blocks)
    numbers = [math.ceil(i * depth / 4) for i in (1, 2, 3, 4)]
    local, taps = None, []
    for number, block in enumerate(trunk.blocks, start=1):
        attn, heads = block.attn, block.attn.num_heads
        if number == numbers[0]:
            local = list(original)
        q, k, v = (list(part) for part in zip(*(qkv(attn, norm(x, block.norm1)) for x in original), strict=True))

        def project(answer: Tensor, attn=attn) -> Tensor:
            return apply(norm(answer, attn.norm), attn.proj)

        if local is not None:  # eq. 8, V as it is: rotary positions belong to Q and K
            local = [project(a) + s for a, s in zip(attend(v, v, v, heads), local, strict=True)]
        if rope is not None:
            table = rope.get_embed()
            for part in (q, k):
                part[prefix:] = [turned(x, row, heads) for x, row in zip(part[prefix:], table, strict=True)]
        attended = [s + project(a) for a, s in zip(attend(q, k, v, heads), original, strict=True)]
        original = [x + mlp(block.mlp, norm(x, block.norm2)) for x in attended]
        if number in numbers:
            taps.append(local[prefix:])

    def joint(seen: list[Tensor]) -> Tensor:
        """The pooling head over these tokens, or the first of them as class token; then timm's head."""
        seen = [norm(x, trunk.norm) for x in seen]
        pooled, pool = seen[0], trunk.attn_pool
        if pool is not None:
            query = apply(pool.latent[0, 0].double(), pool.q)
            keys, values = zip(*(apply(x, pool.kv).chunk(2) for x in seen), strict=True)
            pooled = apply(attend([query], keys, values, pool.num_heads)[0], pool.proj)
            pooled = pooled + mlp(pool.mlp, norm(pooled, pool.norm))
        return apply(pooled, trunk.head) if isinstance(trunk.head, torch.nn.Linear) else pooled

    return [torch.stack([joint([x]) for x in tap]) for tap in taps], joint(
        local if global_token == "local" else original
    )


@pytest.mark.parametrize("global_token", ["original", "local"])
def test_equals_the_equations_written_as_loops(clip, normal, global_token):
    pixels = normal(2, 3, 32, 32)
    features = ClipVV(clip.visual, (32, 32), global_token=global_token)(pixels)
    for image in range(2):
        taps, first = reference(clip.visual.trunk, pixels[image], global_token)
        assert len(features.patches) == len(taps) == 4
        for got, expected in zip(features.patches, taps, strict=True):
            torch.testing.assert_close(got[image].double(), expected, rtol=2e-4, atol=2e-4)
        torch.testing.assert_close(features.global_token[image].double(), first, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("vv", [True, False])
def test_the_original_path_is_its_makers_forward_pass(clip, normal, vv):
    pixels = normal(2, 3, 32, 32)
    with torch.no_grad():
        expected = clip.encode_image(pixels)
    assert expected.std() > 1e-2
    torch.testing.assert_close(
        ClipVV(clip.visual, (32, 32), vv=vv)(pixels).global_token, expected, rtol=1e-4, atol=1e-5
    )


def test_another_size_is_what_timm_makes_of_it(kind, shake, normal):
    """Positions resized, rotary ones spread over the same reference grid."""
    clip, pixels = small_towers.seeded(kind, shake), normal(1, 3, 48, 64)
    got = ClipVV(clip.visual, (48, 64)).global_feature
    tower = ClipVV(clip.visual, (48, 64))
    got = tower(pixels)
    assert got.patches[0].shape[:2] == (1, 48) and tower.grid == (6, 8)
    clip.visual.trunk.set_input_size(img_size=(48, 64))
    with torch.no_grad():
        torch.testing.assert_close(got.global_token, clip.visual(pixels), rtol=1e-4, atol=1e-5)


def test_four_stages_share_no_storage_and_nothing_learns(clip, normal):
    tower = ClipVV(clip.visual, (32, 32))
    stages = tower(normal(1, 3, 32, 32)).patches
    assert len({stage.untyped_storage().data_ptr() for stage in stages}) == 4
    assert min((a - b).abs().max() for i, a in enumerate(stages) for b in stages[:i]) > 1e-2
    assert not any(parameter.requires_grad for parameter in tower.parameters())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("MobileCLIP2-S0", "FastVit mixes its patches by convolutions"),
        ("MobileCLIP2-B", "convolutional stem"),
        ("convnext_base", "convolutions"),
        ("RN50", "no transformer blocks over patches"),
        ("coca_ViT-B-32", "pooling head is CoCa's"),
        ("vit_medium_patch16_gap_256", "projection of open_clip's"),
    ],
)
def test_what_does_not_suit_is_refused_with_the_reason(name, reason):
    config = open_clip.get_model_config(name)
    config.pop("multimodal_cfg", None)
    config.pop("custom_text", None)
    config["text_cfg"] = {"context_length": 77, "vocab_size": 64, "width": 64, "heads": 2, "layers": 1}
    with torch.device("meta"):
        visual = open_clip.CustomTextCLIP(**config).visual
    with pytest.raises(CheckpointError, match=reason) as caught:
        adapt(visual)
    assert "\n" not in str(caught.value) and "--list-backbones" in str(caught.value)


def test_layer_scale_and_registers_are_refused(shake):
    clip = small_towers.seeded("pe-core", shake)
    clip.visual.trunk.blocks[2].gamma_1 = torch.nn.Parameter(torch.ones(48))
    with pytest.raises(CheckpointError, match="layer scale"):
        adapt(clip.visual)
    clip = small_towers.seeded("siglip2", shake)
    clip.visual.trunk.reg_token = torch.nn.Parameter(torch.zeros(1, 4, 48))
    with pytest.raises(CheckpointError, match="register tokens"):
        adapt(clip.visual)


def test_a_plain_clip_keeps_the_names_of_its_tensors():
    """Descriptors, caches and checkpoints go by them."""
    from kanoclip.train.backbones import get_backbone

    tower = ClipVV(seeded_clip(get_backbone("random-tiny")).visual, (48, 48))
    names = set(tower.state_dict())
    assert {"class_embedding", "positional_embedding", "ln_pre.weight", "blocks.0.qkv_weight", "proj"} <= names
    assert {"blocks.2.out.bias", "final.v.weight", "final.q.bias", "ln_post.bias"} <= names
    assert not any(name.startswith(("pool.", "proj_bias")) or name.endswith((".cos", ".sin")) for name in names)
