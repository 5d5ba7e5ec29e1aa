"""One CLIP's weights in every layout that people have: the same features; and what is none is called what it is."""

from __future__ import annotations

import json
from functools import partial
from unittest import mock

import clip_layouts
import pytest
import small_towers
import timm
import torch
from safetensors.torch import save_file

from kanoclip.runtime.errors import CheckpointError
from kanoclip.train import backbones
from kanoclip.train.backbones import Backbone, load_clip
from kanoclip.train.model.text import TextEncoder
from kanoclip.train.model.towers.clip_vv import ClipVV

QUICK = Backbone("random-tiny", "as OpenAI's: QuickGELU", quick_gelu=True)


class Small(Backbone):
    """A small tower of a kind as an entry of the registry."""

    def architecture(self):
        return {**small_towers.architecture(self.name)[0], "custom_text": True, "quick_gelu": False}


def contiguous(state):
    return {name: tensor.contiguous() for name, tensor in state.items()}


@pytest.fixture(scope="module")
def clip(make_clip):
    return make_clip(quick_gelu=True)


def write(layout, state, folder):
    """The weights file of a layout."""
    if layout == "TorchScript":
        clip_layouts.save_torchscript(state, folder / "ViT.pt")
        return folder / "ViT.pt"
    if layout.startswith("Hugging Face"):
        (folder / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": {}}))
        theirs = clip_layouts.hugging_face_clip(state)
        if layout.endswith("safetensors"):
            save_file(contiguous(theirs), folder / "model.safetensors")
            return folder / "model.safetensors"
        torch.save(theirs, folder / "pytorch_model.bin")
        return folder / "pytorch_model.bin"
    path = folder / "open_clip_pytorch_model.bin"
    if layout == "safetensors":
        save_file(contiguous(state), path := folder / "open_clip_model.safetensors")
    elif layout == "a run of several GPUs":
        torch.save(
            {"epoch": 3, "optimizer": {"lr": 1.0}, "state_dict": {f"module.{n}": t for n, t in state.items()}}, path
        )
    elif layout == "legacy":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    elif layout == "text apart":
        apart = {n if n.startswith(("visual.", "logit")) else f"text.{n}": t for n, t in state.items()}
        torch.save(apart, path)
    else:
        torch.save({f"_orig_mod.module.{name}": tensor for name, tensor in state.items()}, path)
    return path


@torch.no_grad()
def features(clip, pixels):
    text = TextEncoder(clip)
    image = ClipVV(clip.visual, (48, 48))(pixels)
    return torch.cat(
        [*(stage.flatten() for stage in image.patches), image.global_token.flatten(), text.encode(["a nut"])[0]]
    )


@pytest.mark.parametrize(
    ("layout", "named"),
    [
        ("TorchScript", "OpenAI TorchScript"),
        ("Hugging Face safetensors", "Hugging Face CLIPModel"),
        ("Hugging Face bin", "Hugging Face CLIPModel"),
        ("safetensors", "open_clip"),
        ("a run of several GPUs", "open_clip"),
        ("legacy", "open_clip"),
        ("text apart", "open_clip"),
        ("compiled", "open_clip"),
    ],
)
def test_every_layout_gives_identical_features(tmp_path, clip, normal, layout, named):
    path = write(layout, clip.state_dict(), tmp_path)
    loaded, weights = load_clip(QUICK, str(path))
    assert weights.layout == named and named in weights.title and weights.trained
    pixels = normal(1, 3, 48, 48)
    assert torch.equal(features(loaded, pixels), features(clip, pixels))


def test_a_siglip_of_hugging_face_gives_identical_features(tmp_path, shake, normal):
    clip = small_towers.seeded("siglip2", shake)
    theirs = clip_layouts.hugging_face_siglip(clip.state_dict())
    save_file(contiguous(theirs), tmp_path / "model.safetensors")
    _, small = small_towers.architecture("siglip2")
    with mock.patch.object(timm, "create_model", partial(timm.create_model, **small)):
        loaded, weights = load_clip(Small("siglip2", "SigLIP", tokenizer="gemma"), str(tmp_path / "model.safetensors"))
    assert weights.layout == "Hugging Face SiglipModel" and weights.tokenizer is None
    pixels, ids = normal(1, 3, 32, 32), torch.tensor([[5, 9, 1, *[0] * 21]])
    with torch.no_grad():
        assert torch.equal(loaded.encode_image(pixels), clip.encode_image(pixels))
        assert torch.equal(loaded.encode_text(ids), clip.encode_text(ids))
        assert loaded.logit_bias == clip.logit_bias


def refusal(path, backbone=QUICK):
    with pytest.raises(CheckpointError) as caught:
        load_clip(backbone, str(path))
    message = str(caught.value)
    assert "\n" not in message and str(path) in message and len(message) < len(str(path)) + 400
    return message


def test_half_precision_is_read_as_it_is(tmp_path, clip):
    state = {name: tensor.half() for name, tensor in clip.state_dict().items()}
    clip_layouts.save_torchscript(state, tmp_path / "ViT.pt")
    loaded, _ = load_clip(QUICK, str(tmp_path / "ViT.pt"))
    assert loaded.visual.proj.dtype == torch.float32
    assert torch.equal(loaded.visual.proj, clip.visual.proj.half().float())


@pytest.mark.parametrize("layout", ["TorchScript", "Hugging Face bin"])
def test_another_activation_is_refused_with_the_right_backbones_name(tmp_path, monkeypatch, clip, layout):
    monkeypatch.setitem(backbones.REGISTRY, "tiny-quick", Quick("tiny-quick", "the same shape", quick_gelu=True))
    message = refusal(write(layout, clip.state_dict(), tmp_path), backbones.get_backbone("random-tiny"))
    assert "QuickGELU, random-tiny uses GELU" in message and "--backbone tiny-quick" in message


class Quick(Backbone):
    def architecture(self):
        return {**backbones.get_backbone("random-tiny").architecture(), "quick_gelu": self.quick_gelu}


def test_another_grid_is_refused_and_not_resized(tmp_path, make_clip):
    save_file(contiguous(make_clip(image_size=64).state_dict()), tmp_path / "64.safetensors")
    message = refusal(tmp_path / "64.safetensors", backbones.get_backbone("random-tiny"))
    assert "positions are for another grid, 65 rows in place of 37" in message
    assert "4 blocks of width 64, patch 8, 8x8 patches (64 px)" in message and "--list-backbones" in message


def test_the_backbone_that_fits_is_named(tmp_path, clip):
    save_file(contiguous(clip.state_dict()), tmp_path / "tiny.safetensors")
    message = refusal(tmp_path / "tiny.safetensors", backbones.get_backbone("vit-b-16"))
    assert "--backbone random-tiny has that shape" in message and "vit-b-16" in message


def test_nan_is_named(tmp_path, clip):
    state = contiguous(clip.state_dict())
    state["visual.ln_post.bias"] = torch.full((64,), float("nan"))
    save_file(state, tmp_path / "nan.safetensors")
    assert "visual.ln_post.bias holds NaN" in refusal(tmp_path / "nan.safetensors")


OTHERS = {
    "prompts": ({"prompt_learner": {"ctx_pos": 1, "ctx_neg": 1, "compound_prompts_text.0": 1}}, "AnomalyCLIP"),
    "own": ({"prompts.context": 1, "head.adapter.up.bias": 1}, "--checkpoint"),
    "image": ({"visual.conv1.weight": 1, "visual.proj": 1}, "an image tower alone"),
    "text": ({"token_embedding.weight": 1}, "a text tower alone"),
    "meta": ({"visual.attn_pool.probe": 1, "token_embedding.weight": 1}, "timm/PE-Core"),
    "apple": ({"image_encoder.model.patch_emb.0.block.conv.weight": 1}, "OpenCLIP repository"),
    "foreign": ({"layer1.0.conv1.weight": 1}, "no CLIP with a vision transformer"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_whole_clip_is_called_what_it_is(tmp_path, name):
    content, expected = OTHERS[name]
    tensors = {
        key: {k: torch.zeros(2) for k in value} if isinstance(value, dict) else torch.zeros(2)
        for key, value in content.items()
    }
    torch.save(tensors, tmp_path / f"{name}.pth")
    assert expected in refusal(tmp_path / f"{name}.pth")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1710540580\n",
            "Git LFS pointer to 1631 MiB",
        ),
        (b"<!DOCTYPE html><html>Sign in</html>", "a web page"),
        (b"", "cut short"),
        (b"\x93NUMPY", "neither safetensors nor an archive of torch"),
    ],
)
def test_what_is_no_weights_file_at_all(tmp_path, content, expected):
    (tmp_path / "model.safetensors").write_bytes(content)
    assert expected in refusal(tmp_path / "model.safetensors")


def test_a_layout_with_a_part_missing_or_too_much(tmp_path, clip):
    theirs = clip_layouts.hugging_face_clip(clip.state_dict())
    del theirs["vision_model.encoder.layers.1.self_attn.k_proj.weight"]
    torch.save(theirs, tmp_path / "part.bin")
    assert "of q, k and v there are only q, v" in refusal(tmp_path / "part.bin")
    theirs = clip_layouts.hugging_face_clip(clip.state_dict())
    theirs["vision_model.encoder.layers.1.self_attn.rope.weight"] = torch.zeros(2)
    torch.save(theirs, tmp_path / "more.bin")
    assert "self_attn.rope.weight, which a Hugging Face CLIPModel does not have" in refusal(tmp_path / "more.bin")
