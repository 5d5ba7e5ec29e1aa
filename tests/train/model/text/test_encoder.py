"""Text features against open_clip's encode_text."""

from __future__ import annotations

import open_clip
import pytest
import torch

TOKENIZER = open_clip.SimpleTokenizer()
UNUSUAL = ["", "   ", "螺丝", "🔩 ", "{}", "!!!", "a\nb\tc", "&amp;", "<start_of_text>", "-" * 300]


@pytest.mark.parametrize(
    "texts", [["a"], ["hazelnut", "metal nut with a fairly long name", "pcb4"], ["", "word " * 100, "ü"], UNUSUAL]
)
def test_encode_is_open_clips_encode_text(clip, encoder, texts):
    got = encoder.encode(texts)
    with torch.no_grad():
        expected = clip.encode_text(TOKENIZER(texts), normalize=True)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_runs_no_further_than_the_last_end_token(encoder):
    lengths = []
    handle = encoder.transformer.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    encoder.encode(["hazelnut", "metal nut"])
    handle.remove()
    assert lengths == [4]  # start, metal, nut, end


def test_shares_the_frozen_tower(clip, encoder):
    assert encoder.context_length == 77 and encoder.width == 64
    assert encoder.token_embedding is clip.token_embedding
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
