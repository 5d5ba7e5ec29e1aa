"""Text features against open_clip's encode_text and a prompt put together by hand."""

from __future__ import annotations

import itertools

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kanoclip.train.model.text.encoder import TextEncoder
from kanoclip.train.model.text.prompts import (
    HANDCRAFTED_STATES,
    LearnablePrompts,
    handcrafted_features,
    template_features,
)

TOKENIZER = open_clip.SimpleTokenizer()
CLASSES = ["hazelnut", "metal nut with a fairly long name", "pcb4"]
UNUSUAL = [
    "",
    "   ",
    "螺丝",
    "🔩 ",
    "{}",
    "{0} %s",
    "!!!",
    "a\nb\tc",
    "O'Reilly's",
    "&amp;",
    "<start_of_text>",
    "-" * 300,
]
STATES = (("normal", "perfect"), ("abnormal", "defective"))


@pytest.fixture
def prompts(encoder):
    torch.manual_seed(0)
    return LearnablePrompts(encoder.width, 12)


@torch.no_grad()
def full_length(clip, embeddings: Tensor, end: int) -> Tensor:
    """CLIP's text tower over one prompt of all 77 embeddings."""
    x = embeddings[None] + clip.positional_embedding
    x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask))
    return F.normalize(x[0, end] @ clip.text_projection, dim=-1)


@torch.no_grad()
def by_hand(clip, tokenizer, context: Tensor, name: str) -> Tensor:
    """[2, C] of eq. 1: start, K vectors, word and class, end (last place if need be), padding."""
    states = []
    for state, words in enumerate(STATES):
        features = []
        for word in words:
            inner = tokenizer.encode(f"{word} {name}")[: 77 - 2 - context.shape[1]]
            end = 1 + context.shape[1] + len(inner)
            ids = [*inner, tokenizer.eot_token_id] + [0] * (76 - end)
            start = clip.token_embedding(torch.tensor([tokenizer.sot_token_id]))
            embeddings = torch.cat([start, context[state], clip.token_embedding(torch.tensor(ids))])
            assert embeddings.shape[0] == 77
            features.append(full_length(clip, embeddings, end))
        states.append(F.normalize(torch.stack(features).mean(0), dim=0))
    return torch.stack(states)


@pytest.mark.parametrize("length", [1, 4, 12, 64])
def test_learnable_prompts_are_the_ones_of_eq_1(clip, encoder, length):
    torch.manual_seed(1)
    prompts = LearnablePrompts(encoder.width, length)
    with torch.no_grad():
        prompts.context.mul_(20)  # 0.02 would hide in the noise
        got = prompts(encoder, CLASSES)
    assert got.shape == (3, 2, 64)
    for name, features in zip(CLASSES, got, strict=True):
        expected = by_hand(clip, TOKENIZER, prompts.context, name)
        torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


def test_states_differ_and_context_is_drawn_small(encoder):
    torch.manual_seed(0)
    context = LearnablePrompts(encoder.width, 64).context
    assert context.shape == (2, 64, encoder.width)
    assert context.std().item() == pytest.approx(0.02, rel=0.05)
    assert abs(context.mean().item()) < 1e-3
    assert not torch.equal(context[0], context[1])


# "!" inside a longer run of punctuation is token 0, which is also what pads a prompt.
@pytest.mark.parametrize(
    "name", ["rusty " * 80 + "bolt", "!¿" * 60, "nut " + "!¿" * 60, "!§" * 40, "? " * 90, "é" * 300]
)
def test_class_name_that_is_too_long_is_cut_and_ends_with_the_end_token(clip, encoder, prompts, name, monkeypatch):
    seen = {}
    forward = TextEncoder.forward

    def spy(self, embeddings, end):
        seen.update(embeddings=embeddings.detach(), end=end)
        return forward(self, embeddings, end)

    monkeypatch.setattr(TextEncoder, "forward", spy)
    with torch.no_grad():
        got = prompts(encoder, [name, "nut"])
    assert seen["embeddings"].shape[1] == 77
    assert seen["end"][:2].tolist() == [76, 76]
    eot = clip.token_embedding.weight[TOKENIZER.eot_token_id]
    for row, end in enumerate(seen["end"]):
        assert torch.equal(seen["embeddings"][row, end], eot)
    torch.testing.assert_close(got[0], by_hand(clip, TOKENIZER, prompts.context, name), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got[1], by_hand(clip, TOKENIZER, prompts.context, "nut"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("words", range(58, 66))
def test_class_names_around_the_limit(clip, encoder, prompts, words):
    """77 = start + 12 vectors + state word + 62 words of the class + end."""
    name = " ".join(["nut"] * words)
    with torch.no_grad():
        got = prompts(encoder, [name])[0]
    torch.testing.assert_close(got, by_hand(clip, TOKENIZER, prompts.context, name), rtol=1e-4, atol=1e-5)
    same = " ".join(["nut"] * 62)
    with torch.no_grad():
        limit = prompts(encoder, [same])[0]
    assert torch.allclose(got, limit, atol=1e-6) == (words >= 62)


FIXED = {"template": template_features, "handcrafted": handcrafted_features}


@pytest.mark.parametrize("kind", ["learned", "template", "handcrafted"])
def test_class_order_and_unit_norms(encoder, prompts, kind):
    def features(classes):
        with torch.no_grad():
            return prompts(encoder, classes) if kind == "learned" else FIXED[kind](encoder, classes)

    alone = {name: features([name])[0] for name in CLASSES}
    for left, right in itertools.combinations(CLASSES, 2):
        assert (alone[left] - alone[right]).abs().max() > 1e-3
    for order in ([0, 1, 2], [2, 0, 1], [1, 1]):
        got = features([CLASSES[i] for i in order])
        torch.testing.assert_close(got.norm(dim=-1), torch.ones(len(order), 2))
        for row, index in enumerate(order):
            torch.testing.assert_close(got[row], alone[CLASSES[index]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["learned", "template", "handcrafted"])
def test_unusual_class_names(encoder, prompts, kind):
    names = UNUSUAL if kind == "learned" else ["", "{} {0}", "螺丝\n🔩", "x" * 400]
    with torch.no_grad():
        got = prompts(encoder, names) if kind == "learned" else FIXED[kind](encoder, names)
    assert got.shape == (len(names), 2, 64)
    assert torch.isfinite(got).all()
    torch.testing.assert_close(got.norm(dim=-1), torch.ones(len(names), 2))


def test_white_space_and_case_do_not_matter(encoder, prompts):
    with torch.no_grad():
        got = prompts(encoder, ["metal nut", "  Metal   NUT ", "metal\tnut\n"])
    torch.testing.assert_close(got[1], got[0])
    torch.testing.assert_close(got[2], got[0])


def test_gradient_reaches_the_context_and_nothing_else(encoder, prompts):
    prompts(encoder, CLASSES)[:, :, 0].sum().backward()
    assert (prompts.context.grad.abs().amax(dim=-1) > 0).all()
    assert not any(p.requires_grad or p.grad is not None for p in encoder.parameters())


def test_template_is_a_photo_of(encoder):
    texts = ["a photo of a normal metal nut", "a photo of a perfect metal nut"]
    with torch.no_grad():
        got = template_features(encoder, ["metal nut"])[0]
        normal = F.normalize(encoder.encode(texts).mean(0), dim=-1)
        abnormal = encoder.encode(["a photo of an abnormal metal nut", "a photo of a defective metal nut"]).mean(0)
    torch.testing.assert_close(got, torch.stack([normal, F.normalize(abnormal, dim=-1)]))


def test_handcrafted_is_winclips_ensemble(clip, encoder, monkeypatch):
    texts = []
    encode = TextEncoder.encode

    def spy(self, batch):
        texts.append(list(batch))
        return encode(self, batch)

    monkeypatch.setattr(TextEncoder, "encode", spy)
    got = handcrafted_features(encoder, ["hazelnut", "{}"])
    assert [len(batch) for batch in texts] == [7 * 22, 4 * 22] * 2
    assert all(len(set(batch)) == len(batch) for batch in texts)
    assert not set(texts[0]) & set(texts[1])
    assert {
        "a cropped photo of the hazelnut.",
        "a jpeg corrupted photo of a flawless hazelnut.",
        "a photo of the hazelnut without damage for visual inspection.",
    } <= set(texts[0])
    assert {
        "a photo of a damaged hazelnut for anomaly detection.",
        "a bright photo of the hazelnut with flaw.",
        "a photo of the small hazelnut with defect.",
    } <= set(texts[1])
    assert "a photo of a damaged {}." in texts[3]  # a class name is never a template
    for state in (0, 1):
        with torch.no_grad():
            features = [clip.encode_text(TOKENIZER([t]), normalize=True)[0] for t in texts[state][::11]]
        sampled = encode(encoder, texts[state])[::11]
        torch.testing.assert_close(sampled, torch.stack(features), rtol=1e-4, atol=1e-5)
        mean = encode(encoder, texts[state]).mean(0)
        torch.testing.assert_close(got[0, state], mean / mean.norm(), rtol=1e-5, atol=1e-6)


def test_winclips_states():
    assert [len(phrases) for phrases in HANDCRAFTED_STATES] == [7, 4]
    words = ("damage", "defect", "flaw")
    assert all("without" in p or "less" in p or not any(w in p for w in words) for p in HANDCRAFTED_STATES[0])
    assert all(any(w in p for w in words) and "without" not in p for p in HANDCRAFTED_STATES[1])
