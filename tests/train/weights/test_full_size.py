"""Published architectures at their full size, seeded, through real files in every layout."""

from __future__ import annotations

from collections.abc import Callable

import clip_layouts
import pytest
import torch
from safetensors.torch import save_file

from kanoclip.train.backbones import get_backbone, seeded_clip
from kanoclip.train.model.towers.clip_vv import ClipVV
from kanoclip.train.weights.load import load_clip

pytestmark = pytest.mark.nightly


def open_clip_names(state):
    return state


WRITERS: dict[str, Callable[[dict], dict]] = {
    "Hugging Face CLIPModel": clip_layouts.hugging_face_clip,
    "Hugging Face SiglipModel": clip_layouts.hugging_face_siglip,
    "open_clip": open_clip_names,
}


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("vit-b-16", "Hugging Face CLIPModel"),
        ("vit-b-16", "OpenAI TorchScript"),
        ("vit-l-14-336", "Hugging Face CLIPModel"),
        ("vit-l-14-336", "OpenAI TorchScript"),
        ("siglip2-b-16", "Hugging Face SiglipModel"),
        ("siglip2-b-16", "open_clip"),
        ("pe-core-t-16-384", "open_clip"),
    ],
)
def test_a_layout_gives_identical_features(tmp_path, name, layout):
    backbone = get_backbone(name)
    clip = seeded_clip(backbone, seed=3)
    # As published: half precision, which float32 holds exactly.
    state = {key: tensor.half() for key, tensor in clip.state_dict().items()}
    clip.load_state_dict({key: tensor.float() for key, tensor in state.items()})
    if layout == "OpenAI TorchScript":
        path = tmp_path / "ViT.pt"
        clip_layouts.save_torchscript(state, path)
    else:
        path = tmp_path / "model.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in WRITERS[layout](state).items()}, path)
    del state
    loaded, weights = load_clip(backbone, str(path))
    assert weights.layout == layout
    size = backbone.native_size
    pixels = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    mine, theirs = (ClipVV(one.visual, size)(pixels) for one in (loaded, clip))
    for got, want in zip((*mine.patches, mine.global_token), (*theirs.patches, theirs.global_token), strict=True):
        assert torch.equal(got, want)
    for key, tensor in clip.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key
