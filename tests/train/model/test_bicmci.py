"""Bi-CMCI against a straight reference on the states before either update."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kanoclip.train.model.bicmci import BiCMCI

DIM, GRID, HEADS = 64, (3, 4), 4


@pytest.fixture
def untrained():
    torch.manual_seed(0)
    return BiCMCI(DIM, GRID)


@pytest.fixture
def stage(untrained, shake):
    return shake(untrained, size=0.3)


@pytest.fixture
def patches(normal):
    return F.normalize(normal(3, 12, DIM), dim=-1)


@pytest.fixture
def text(normal):
    return F.normalize(normal(3, 2, DIM), dim=-1)


def norm(module, x: Tensor) -> Tensor:
    return F.layer_norm(x, (DIM,), module.weight, module.bias, module.eps)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Multi-head attention of [Q, inner] over [K, inner], head by head."""
    width = q.shape[-1] // HEADS
    heads = []
    for head in range(HEADS):
        own = slice(head * width, (head + 1) * width)
        heads.append(torch.softmax(q[:, own] @ k[:, own].T / width**0.5, dim=-1) @ v[:, own])
    return torch.cat(heads, dim=-1)


def reference(stage: BiCMCI, patches: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """One image: [P, C] and [2, C]."""
    q, k, v = F.linear(norm(stage.text_norm, text), stage.text_qkv.weight, stage.text_qkv.bias).split(DIM // 4, -1)
    text = text + 0.1 * F.linear(attend(q, k, v), stage.text_out.weight, stage.text_out.bias)
    own = stage.deformable(norm(stage.deformable_norm, patches)[None])[0]
    patches = patches + 0.1 * F.linear(own, stage.deformable_out.weight, stage.deformable_out.bias)
    p, t = norm(stage.cross_patch_norm, patches), norm(stage.cross_text_norm, text)

    q = F.linear(p, stage.text_to_visual_q.weight, stage.text_to_visual_q.bias)
    k, v = F.linear(t, stage.text_to_visual_kv.weight, stage.text_to_visual_kv.bias).split(DIM // 4, -1)
    to_patches = F.linear(attend(q, k, v), stage.text_to_visual_out.weight, stage.text_to_visual_out.bias)

    q = F.linear(t, stage.visual_to_text_q.weight, stage.visual_to_text_q.bias)
    k, v = F.linear(p, stage.visual_to_text_kv.weight, stage.visual_to_text_kv.bias).split(DIM // 4, -1)
    to_text = F.linear(attend(q, k, v), stage.visual_to_text_out.weight, stage.visual_to_text_out.bias)
    return patches + 0.1 * to_patches, text + 0.1 * to_text


def test_untrained_is_the_identity(untrained, patches, text):
    refined = untrained(patches, untrained.text_state(text))
    assert torch.equal(refined[0], patches)
    assert torch.equal(refined[1], text)
    assert torch.equal(untrained.text_state(text).tokens, text)


def test_equals_the_reference(stage, patches, text):
    refined_patches, refined_text = stage(patches, stage.text_state(text))
    for index in range(3):
        expected_patches, expected_text = reference(stage, patches[index], text[index])
        torch.testing.assert_close(refined_patches[index], expected_patches, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(refined_text[index], expected_text, rtol=1e-5, atol=1e-5)


def test_every_part_counts(stage, patches, text):
    """Each of the four attentions changes the answer: the reference above could not see a part that is dead."""
    with torch.no_grad():
        whole = stage(patches, stage.text_state(text))
    moved = {}
    for name in ("text_out", "deformable_out", "text_to_visual_out", "visual_to_text_out"):
        linear = getattr(stage, name)
        kept = [p.detach().clone() for p in (linear.weight, linear.bias)]
        with torch.no_grad():
            linear.weight.zero_()
            linear.bias.zero_()
            without = stage(patches, stage.text_state(text))
            linear.weight.copy_(kept[0])
            linear.bias.copy_(kept[1])
        moved[name] = [float((a - b).detach().abs().max()) for a, b in zip(whole, without, strict=True)]
    assert min(moved["text_out"]) > 1e-4
    assert min(moved["deformable_out"]) > 1e-5
    assert moved["text_to_visual_out"][0] > 1e-3 and moved["text_to_visual_out"][1] == 0
    assert moved["visual_to_text_out"][1] > 1e-3 and moved["visual_to_text_out"][0] == 0


def test_text_of_first_axis_one_is_text_for_every_image(stage, patches, text):
    one = stage(patches, stage.text_state(text[:1]))
    copies = stage(patches, stage.text_state(text[:1].repeat(3, 1, 1)))
    for got, expected in zip(one, copies, strict=True):
        assert got.shape[0] == 3
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_text_state_is_per_class(stage, text):
    together = stage.text_state(text)
    alone = stage.text_state(text[1:2])
    for name in ("tokens", "probes", "bias", "normal", "change"):
        torch.testing.assert_close(getattr(together, name)[1:2], getattr(alone, name))


def test_gradients_reach_the_zero_initialised_outputs(untrained, patches, text):
    refined = untrained(patches, untrained.text_state(text))
    sum((x * torch.linspace(-1, 1, DIM)).sum() for x in refined).backward()
    for name in ("text_out", "deformable_out", "text_to_visual_out", "visual_to_text_out"):
        linear = getattr(untrained, name)
        assert linear.weight.grad.abs().max() > 0 and linear.bias.grad.abs().max() > 0


def test_inner_width_is_a_quarter_and_there_is_no_feed_forward(untrained):
    inner = DIM // 4
    linears = {
        name: (m.in_features, m.out_features) for name, m in untrained.named_modules() if hasattr(m, "in_features")
    }
    assert linears == {
        "text_qkv": (DIM, 3 * inner),
        "text_out": (inner, DIM),
        "deformable.value": (DIM, inner),
        "deformable.offsets": (DIM, HEADS * 4 * 2),
        "deformable.weights": (DIM, HEADS * 4),
        "deformable_out": (inner, DIM),
        "text_to_visual_q": (DIM, inner),
        "text_to_visual_kv": (DIM, 2 * inner),
        "text_to_visual_out": (inner, DIM),
        "visual_to_text_q": (DIM, inner),
        "visual_to_text_kv": (DIM, 2 * inner),
        "visual_to_text_out": (inner, DIM),
    }
