"""Where weights come from, and what is refused."""

from __future__ import annotations

import hashlib
import os
import pickle
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file

from kanoclip.runtime.errors import CheckpointError
from kanoclip.train import backbones
from kanoclip.train.backbones import REGISTRY, get_backbone, load_clip
from kanoclip.train.model.text import TextEncoder
from kanoclip.train.model.towers.clip_vv import CLIP_PIXELS, ClipVV, Normalisation
from kanoclip.train.weights import published

SHAPES = {  # blocks, width, joint width, patch, native size, text width
    "nano": (4, 128, 128, 16, 256, 192),
    "vit-l-14-336": (24, 1024, 768, 14, 336, 768),
    "vit-b-16": (12, 768, 512, 16, 224, 512),
    "vit-l-14": (24, 1024, 768, 14, 224, 768),
    "vit-b-16-datacomp": (12, 768, 512, 16, 224, 512),
    "vit-b-32-256": (12, 768, 512, 32, 256, 512),
    "vit-b-16-plus-240": (12, 896, 640, 16, 240, 640),
    "siglip2-b-16": (12, 768, 768, 16, 224, 768),
    "siglip2-l-16-256": (24, 1024, 1024, 16, 256, 1024),
    "pe-core-t-16-384": (12, 192, 512, 16, 384, 512),
    "pe-core-s-16-384": (12, 384, 512, 16, 384, 512),
    "pe-core-b-16": (12, 768, 1024, 16, 224, 1024),
    "pe-core-l-14-336": (24, 1024, 1024, 14, 336, 1024),
    "eva02-b-16": (12, 768, 512, 16, 224, 512),
    "eva02-l-14-336": (24, 1024, 768, 14, 336, 768),
    "mobileclip2-l-14": (24, 1024, 768, 14, 224, 768),
    "tinyclip-vit-8m-16": (10, 256, 512, 16, 224, 256),
    "random-tiny": (4, 64, 64, 8, 48, 64),
}
SAME_SHAPE = {  # other weights of a shape that is above
    "vit-b-16-laion2b": "vit-b-16-datacomp",
    "vit-l-14-datacomp": "vit-l-14",
    "vit-l-14-laion2b": "vit-l-14",
    "dfn2b-b-16": "vit-b-16",
    "dfn2b-l-14": "vit-l-14",
}
OPENAI = ["vit-l-14-336", "vit-b-16", "vit-l-14"]
TINY = get_backbone("random-tiny")


def build_on_meta(name: str) -> open_clip.CLIP:
    """Shapes only: ViT-L would take 1.7 GB."""
    with torch.device("meta"):
        return load_clip(get_backbone(name), "none")[0]


def refused(weights, backbone=TINY) -> str:
    """The message of the refusal: one line, about that file."""
    with pytest.raises(CheckpointError) as caught:
        load_clip(backbone, str(weights))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def saved(tmp_path, clip):
    """The weights of a shaken random-tiny."""
    path = tmp_path / "own.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in clip.state_dict().items()}, path)
    return path


@pytest.mark.parametrize("name", SHAPES)
def test_architectures_build_and_the_tower_takes_them(name):
    clip = build_on_meta(name)
    blocks, width, joint, patch, size, text_width = SHAPES[name]
    text = TextEncoder(clip)
    assert (text.width, text.joint_width) == (text_width, joint)
    assert get_backbone(name).native_size == (size, size)
    tower = ClipVV(clip.visual, (size, size))
    assert (tower.taps[-1], tower.width, tower.joint_width) == (blocks, width, joint)
    assert len(tower.blocks) == blocks - (tower.pool is None)
    features = tower(torch.empty(2, 3, size, size, device="meta"))
    assert [tuple(stage.shape) for stage in features.patches] == [(2, (size // patch) ** 2, joint)] * 4
    assert features.global_token.shape == (2, joint)
    # QuickGELU in every block of both towers of OpenAI's, and nowhere else.
    kinds = {type(module) for key, module in clip.named_modules() if key.endswith(("mlp.gelu", "mlp.act"))}
    assert (QuickGELU in kinds) == (name in OPENAI) and len(kinds) == 1 + (name.startswith("eva02"))


def test_shapes_lists_the_whole_registry():
    assert {*SHAPES, *SAME_SHAPE} == set(REGISTRY)
    assert all(name == entry.name and entry.about for name, entry in REGISTRY.items())
    for name, other in SAME_SHAPE.items():
        mine, its = get_backbone(name).architecture(), get_backbone(other).architecture()
        assert {**mine, "quick_gelu": None} == {**its, "quick_gelu": None}


def test_every_published_line_has_its_pixels_and_its_activation():
    """Taken from open_clip's own table, so that a mistake in ours shows."""
    for entry in REGISTRY.values():
        if entry.tag is None:
            continue
        known = open_clip.pretrained.get_pretrained_cfg(entry.open_clip_name, entry.tag)
        assert known["hf_hub"] and bool(known.get("quick_gelu", False)) == entry.quick_gelu, entry.name
        assert entry.normalisation == Normalisation(tuple(known["mean"]), tuple(known["std"]))
    assert get_backbone("siglip2-b-16").normalisation.mean == (0.5, 0.5, 0.5) != CLIP_PIXELS.mean


def test_the_papers_backbone_at_518():
    tower = ClipVV(build_on_meta("vit-l-14-336").visual, (518, 518))
    assert tower.grid == (37, 37) and tower.taps == (6, 12, 18, 24) and tower.vv_start == 6
    assert tower.blocks[0].heads == 16


def test_architecture_is_a_copy():
    get_backbone("vit-b-16").architecture()["vision_cfg"]["layers"] = 1
    get_backbone("nano").architecture()["vision_cfg"]["layers"] = 1
    assert get_backbone("vit-b-16").architecture()["vision_cfg"]["layers"] == 12
    assert get_backbone("nano").architecture()["vision_cfg"]["layers"] == 4


@pytest.mark.parametrize("name", OPENAI)
def test_build_without_quick_gelu_is_refused(monkeypatch, name):
    real = open_clip.CLIP
    monkeypatch.setattr(open_clip, "CLIP", lambda **options: real(**{**options, "quick_gelu": False}))
    with pytest.raises(CheckpointError, match=f"{name}.*QuickGELU"):
        build_on_meta(name)


@pytest.mark.parametrize("tower", ["visual.transformer", "transformer"])
def test_one_block_without_quick_gelu_is_refused(monkeypatch, tower):
    real = open_clip.CLIP

    def build(**options):
        clip = real(**options)
        clip.get_submodule(tower).resblocks[-1].mlp.gelu = torch.nn.GELU()
        return clip

    monkeypatch.setattr(open_clip, "CLIP", build)
    with pytest.raises(CheckpointError, match=f"{tower}.resblocks.11.mlp.gelu"):
        build_on_meta("vit-b-16")


def test_seeded_weights_are_the_same_each_time_and_leave_the_global_generator_alone():
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first, origin = load_clip(TINY, "none")
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(12)
    second, _ = load_clip(TINY, "auto")  # nothing is published
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
    assert (origin.origin, origin.sha256, origin.trained) == ("seeded:0", None, False)
    assert not first.training


def test_unknown_backbone_lists_the_known_ones():
    with pytest.raises(CheckpointError, match=r"'vit-x'.*nano.*random-tiny"):
        get_backbone("vit-x")


def test_safetensors_round_trip(saved, clip):
    torch.manual_seed(11)
    state = torch.get_rng_state()
    loaded, weights = load_clip(TINY, str(saved))
    for name, tensor in clip.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert weights.origin == "file:own.safetensors" and weights.trained
    assert weights.sha256 == hashlib.sha256(saved.read_bytes()).hexdigest()
    assert not loaded.training
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_state_dict_of_torch_round_trip(tmp_path, clip, prefix, wrapped):
    state = {prefix + name: tensor for name, tensor in clip.state_dict().items()}
    path = tmp_path / "own.pt"
    torch.save({"epoch": 3, "name": "x", "state_dict": state} if wrapped else state, path)
    loaded, _ = load_clip(TINY, str(path))
    for name, tensor in clip.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_a_published_file_is_known_by_its_digest(monkeypatch, saved):
    _, weights = load_clip(TINY, str(saved))
    assert weights.known is None and weights.licence is None
    assert weights.title == "file:own.safetensors (open_clip; a file whose sha256 is not known here)"
    digest = hashlib.sha256(saved.read_bytes()).hexdigest()
    monkeypatch.setattr(published, "PUBLISHED", (published.Published(digest, "Ours", "random-tiny"),))
    _, weights = load_clip(TINY, str(saved))
    assert weights.title == "file:own.safetensors (open_clip; Ours)" and weights.licence is TINY.licence


@pytest.mark.parametrize("name", ["missing.safetensors", "missing.pt", "."])
def test_missing_file(tmp_path, name):
    path = tmp_path / name
    message = refused(path)
    assert str(path) in message and "--weights" in message


@pytest.mark.parametrize(
    ("suffix", "content"),
    # A zip file (.pt, .npz) may be followed by more.
    [(s, c) for s in (".safetensors", ".pt", ".npz") for c in ("empty", "noise", "cut")] + [(".safetensors", "longer")],
)
def test_damaged_file(tmp_path, saved, clip, suffix, content):
    whole = saved.read_bytes()
    if suffix == ".pt":
        torch.save(clip.state_dict(), tmp_path / "whole.pt")
        whole = (tmp_path / "whole.pt").read_bytes()
    damaged = {"empty": b"", "noise": os.urandom(5000), "cut": whole[: len(whole) // 2], "longer": whole + b"\0" * 64}
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(damaged[content])
    message = refused(path)
    assert str(path) in message and "random-tiny" in message


def test_weights_of_another_backbone(saved):
    message = refused(saved, get_backbone("nano"))
    assert str(saved) in message and "nano" in message and len(message) < 160 + len(str(saved)) + 120


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "text only", "none"])
def test_file_with_other_tensors(tmp_path, clip, change):
    state = {name: tensor.contiguous() for name, tensor in clip.state_dict().items()}
    if change == "missing":
        del state["visual.transformer.resblocks.3.mlp.c_fc.bias"]
    elif change == "extra":
        state["visual.transformer.resblocks.4.mlp.c_fc.bias"] = torch.zeros(256)
    elif change == "shape":
        state["visual.proj"] = state["visual.proj"][:, :32].contiguous()
    elif change == "text only":
        state = {name: tensor for name, tensor in state.items() if not name.startswith("visual.")}
    else:
        state = {}
    path = tmp_path / "other.safetensors"
    save_file(state, path)
    assert str(path) in refused(path)


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker) -> None:
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors", ".npy", ".npz"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("writer", ["pickle", "torch", "torch legacy", "numpy"])
def test_pickled_objects_are_not_executed(tmp_path, monkeypatch, suffix, writer):
    monkeypatch.delenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", raising=False)
    marker = tmp_path / "executed"
    path = tmp_path / f"evil{suffix}"
    content = {"state_dict": {"visual.proj": Malicious(marker)}}
    with path.open("wb") as file:
        if writer == "pickle":
            pickle.dump(content, file)
        elif writer == "numpy":
            np.save(file, np.array([Malicious(marker)], dtype=object), allow_pickle=True)
        else:
            torch.save(content, file, _use_new_zipfile_serialization=writer == "torch")
    message = refused(path)
    assert not marker.exists()
    assert str(path) in message
    with path.open("rb") as file:  # the file is a danger, or this test is none
        if writer == "numpy":
            np.load(file, allow_pickle=True)
        else:
            torch.load(file, weights_only=False) if writer != "pickle" else pickle.load(file)
    assert marker.exists()


@pytest.mark.parametrize("name", OPENAI)
def test_failed_download_says_what_to_fetch(monkeypatch, name):
    def fail(*_):
        raise OSError("Max retries exceeded\nwith url: /timm/...")

    monkeypatch.setattr(backbones, "download_pretrained", fail)
    with pytest.raises(CheckpointError) as caught, torch.device("meta"):
        load_clip(get_backbone(name))
    message = str(caught.value)
    hub = open_clip.pretrained.get_pretrained_cfg(get_backbone(name).open_clip_name, "openai")["hf_hub"]
    assert "\n" not in message
    assert name in message and f"https://huggingface.co/{hub.rstrip('/')} " in message
    assert "open_clip_model.safetensors" in message and "--weights FILE" in message and "--weights none" in message


def test_downloaded_weights(monkeypatch, saved, clip):
    asked = []
    monkeypatch.setattr(backbones, "get_pretrained_cfg", lambda *names: {"names": names})
    monkeypatch.setattr(backbones, "download_pretrained", lambda cfg: asked.append(cfg["names"]) or str(saved))
    published = replace(TINY, tag="openai")
    loaded, weights = load_clip(published)
    assert asked == [(None, "openai")]
    assert torch.equal(loaded.visual.proj, clip.visual.proj)
    assert weights.origin == "openai" and weights.trained and weights.sha256
    assert not load_clip(published, "none")[1].trained
    assert len(asked) == 1
