"""Weights in other programs' layouts are named as such, with the remedy; the remedy works."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from kanoclip.runtime.errors import CheckpointError
from kanoclip.train.backbones import get_backbone, load_clip, seeded_clip

TINY = get_backbone("random-tiny")


class Whole(torch.nn.Module):
    """A CLIP with the numbers that OpenAI's files have beside it."""

    def __init__(self, clip):
        super().__init__()
        for name, child in clip.named_children():
            self.add_module(name, child)
        for name, parameter in clip.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, number in (("input_resolution", 64), ("context_length", 77), ("vocab_size", 49408)):
            self.register_buffer(name, torch.tensor(number))

    def forward(self, pixels):
        return self.visual(pixels)


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_named_and_its_weights_load(tmp_path):
    clip = seeded_clip(TINY, seed=3)
    height, width = clip.visual.image_size
    traced = torch.jit.trace(Whole(clip).eval(), torch.zeros(1, 3, height, width), check_trace=False)
    traced.save(str(tmp_path / "jit.pt"))
    with pytest.raises(CheckpointError, match=r"jit\.pt is TorchScript.*torch\.jit\.load\('FILE', 'cpu'\)"):
        load_clip(TINY, str(tmp_path / "jit.pt"))
    torch.save(torch.jit.load(str(tmp_path / "jit.pt"), "cpu").state_dict(), tmp_path / "weights.pt")
    loaded, weights = load_clip(TINY, str(tmp_path / "weights.pt"))
    assert weights.trained
    assert torch.equal(loaded.visual.proj, clip.visual.proj)


def test_the_layout_of_transformers(tmp_path):
    state = seeded_clip(TINY, seed=3).state_dict()
    names = {
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "vision_model.embeddings.class_embedding": "visual.class_embedding",
    }
    save_file({name: state[own].contiguous() for name, own in names.items()}, tmp_path / "hf.safetensors")
    with pytest.raises(CheckpointError, match=r"hf\.safetensors has the layout of transformers"):
        load_clip(TINY, str(tmp_path / "hf.safetensors"))
