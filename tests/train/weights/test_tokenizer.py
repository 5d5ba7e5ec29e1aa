"""SigLIP 2's texts, through a real tokenizer.json of the library's."""

from __future__ import annotations

import pytest
import torch

from kanoclip.runtime.errors import CheckpointError
from kanoclip.train.backbones import get_backbone
from kanoclip.train.model.text.encoder import TextEncoder
from kanoclip.train.model.text.prompts import LearnablePrompts
from kanoclip.train.weights.load import Weights, tokenizer_of
from kanoclip.train.weights.tokenizer import GemmaTokenizer

tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture
def path(tmp_path):
    words = [
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        "a",
        "photo",
        "of",
        "normal",
        "perfect",
        "abnormal",
        "defective",
        "nut",
    ]
    numbers = {word: number for number, word in enumerate(words)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(numbers, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.enable_padding(length=64)
    made.enable_truncation(5)
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_lower_case_no_punctuation_an_end_and_padding(path):
    tokenizer = GemmaTokenizer(path)
    ids = tokenizer.tokenize(["A photo, of a NUT!", "", "nut " * 20], 8)
    assert ids.tolist() == [[4, 5, 6, 4, 11, 1, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0], [11] * 7 + [1]]
    assert tokenizer.ends(ids).tolist() == [5, 0, 7] and tokenizer.prefix == 0


def test_prompts_stand_before_the_words_and_the_last_place_is_read(path, shake):
    import small_towers

    clip = small_towers.seeded("siglip2", shake)
    encoder = TextEncoder(clip, GemmaTokenizer(path))
    assert encoder.reads_last and not encoder.causal
    ids = encoder.tokenize(["a nut"])
    with torch.no_grad():
        expected = torch.nn.functional.normalize(clip.encode_text(ids), dim=-1)
        torch.testing.assert_close(encoder.encode(["a nut"]), expected, rtol=1e-5, atol=1e-6)
        prompts = LearnablePrompts(48, 4)
        got = prompts(encoder, ["nut"])
        by_hand = []
        for word in ("normal", "perfect"):
            inner = encoder.embed(encoder.tokenize([f"{word} nut"], 20))
            by_hand.append(encoder(torch.cat([prompts.context[:1], inner], dim=1), torch.tensor([0]))[0])
        mean = torch.nn.functional.normalize(torch.stack(by_hand).mean(0), dim=-1)
    torch.testing.assert_close(got[0, 0], mean, rtol=1e-5, atol=1e-6)


def test_what_is_no_tokenizer(path, tmp_path):
    backbone = get_backbone("siglip2-b-16")
    with pytest.raises(CheckpointError, match=r"put tokenizer.json of .*/timm/ViT-B-16-SigLIP2 beside"):
        tokenizer_of(backbone, Weights("file:x", "0" * 64, trained=True))
    assert isinstance(tokenizer_of(backbone, Weights("x", "0", trained=True, tokenizer=path)), GemmaTokenizer)
    assert tokenizer_of(get_backbone("vit-b-16"), Weights("x", "0", trained=True)) is None
    (tmp_path / "cut.json").write_bytes(path.read_bytes()[:40])
    with pytest.raises(CheckpointError, match=r"cut.json is no tokenizer"):
        GemmaTokenizer(tmp_path / "cut.json")
    tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "other.json"))
    with pytest.raises(CheckpointError, match="no <eos> and <pad>"):
        GemmaTokenizer(tmp_path / "other.json")
