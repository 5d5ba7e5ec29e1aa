"""Weights in other programs' layouts load; what they do not fit is said."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from kanoclip.runtime.errors import CheckpointError
from kanoclip.train.backbones import get_backbone, seeded_clip
from kanoclip.train.weights.load import load_clip

TINY = get_backbone("random-tiny")
QUICK = replace(TINY, quick_gelu=True)  # as all of OpenAI's are


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
def test_torchscript_loads_without_being_run(tmp_path):
    clip = seeded_clip(QUICK, seed=3)
    height, width = clip.visual.image_size
    traced = torch.jit.trace(Whole(clip).eval(), torch.zeros(1, 3, height, width), check_trace=False)
    traced.save(str(tmp_path / "jit.pt"))
    torch.save(torch.jit.load(str(tmp_path / "jit.pt"), "cpu").state_dict(), tmp_path / "weights.pt")
    for name, layout in (("jit.pt", "OpenAI TorchScript"), ("weights.pt", "OpenAI")):
        loaded, weights = load_clip(QUICK, str(tmp_path / name))
        assert weights.trained and weights.layout == layout
        assert torch.equal(loaded.visual.proj, clip.visual.proj)
    with pytest.raises(CheckpointError, match=r"jit\.pt .*trained with QuickGELU, random-tiny uses GELU"):
        load_clip(TINY, str(tmp_path / "jit.pt"))


def test_a_part_of_transformers_layout_is_called_that(tmp_path):
    state = seeded_clip(TINY, seed=3).state_dict()
    names = {
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "vision_model.embeddings.class_embedding": "visual.class_embedding",
    }
    save_file({name: state[own].contiguous() for name, own in names.items()}, tmp_path / "hf.safetensors")
    with pytest.raises(CheckpointError, match=r"hf\.safetensors .*does not hold the weights of random-tiny"):
        load_clip(TINY, str(tmp_path / "hf.safetensors"))
