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
from kanoclip.train.backbones import Backbone
from kanoclip.train.model.text.encoder import TextEncoder
from kanoclip.train.model.towers.clip_vv import ClipVV
from kanoclip.train.weights.load import load_clip

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


BAD_NUMBERS = {
    "NaN": (torch.tensor(float("nan")), "logit_scale holds NaN or infinity"),
    "infinity": (torch.tensor(float("inf")).half(), "logit_scale holds NaN or infinity"),
    "int8": (torch.tensor(3, dtype=torch.int8), "logit_scale is int8, without a scale: take the weights in float32"),
    "float8": (torch.tensor(3.0).to(torch.float8_e4m3fn), "logit_scale is float8_e4m3fn, without a scale"),
}


@pytest.mark.parametrize("kind", BAD_NUMBERS)
def test_numbers_that_are_none_are_named(tmp_path, clip, kind):
    number, expected = BAD_NUMBERS[kind]
    save_file(contiguous(clip.state_dict()) | {"logit_scale": number}, tmp_path / "bad.safetensors")
    assert expected in refusal(tmp_path / "bad.safetensors")


def test_the_name_of_a_training_runs_module_is_left_out(tmp_path, clip):
    state = {f"model.clip.{name}": tensor for name, tensor in contiguous(clip.state_dict()).items()}
    save_file(state, tmp_path / "run.safetensors")
    loaded, weights = load_clip(QUICK, str(tmp_path / "run.safetensors"))
    assert torch.equal(loaded.visual.proj, clip.visual.proj) and weights.layout == "open_clip"
    save_file({n: t for n, t in state.items() if ".visual." in n}, tmp_path / "image.safetensors")
    assert "an image tower alone" in refusal(tmp_path / "image.safetensors")


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
        (b'{"weight_map": {"a": "model-00001-of-00002.safetensors"}}', "JSON, such as a configuration or an index"),
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


def bare_position(state):
    return state | {"visual.positional_embedding": torch.tensor(0.0)}


def many_names(state):
    return state | {"visual.\x1b[31m\n" * 100: torch.zeros(1)}


def without_projection(state):
    return {name: tensor for name, tensor in state.items() if name != "visual.proj"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (bare_position, "visual.positional_embedding has shape [] in place of [37, 64]"),
        (many_names, "\\x1b[31m"),
        (without_projection, "as random-tiny does, but not all of it or more: save the whole"),
    ],
)
def test_names_and_shapes_are_whatever_somebody_wrote(tmp_path, clip, change, expected):
    save_file(change(contiguous(clip.state_dict())), tmp_path / "own.safetensors")
    message = refusal(tmp_path / "own.safetensors", backbones.get_backbone("random-tiny"))
    assert expected in message and message.isprintable()


def test_parts_of_q_k_and_v_that_do_not_fit_and_rows_that_lie_on_each_other(tmp_path, clip):
    """What is joined has no bound but the file's own size."""
    theirs = clip_layouts.hugging_face_clip(clip.state_dict())
    name = "vision_model.encoder.layers.1.self_attn.{}_proj.weight"
    torch.save(theirs | {name.format("k"): torch.zeros(3, 5)}, tmp_path / "shape.bin")
    assert "shapes that do not fit together: [[64, 64], [3, 5], [64, 64]]" in refusal(tmp_path / "shape.bin")
    torch.save(
        theirs | {name.format(part): torch.zeros(1).expand(10**6, 10**6) for part in "qkv"}, tmp_path / "big.bin"
    )
    assert "larger than its bytes" in refusal(tmp_path / "big.bin")
