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
from safetensors.torch import save_file

from kanoclip.runtime.errors import CheckpointError, FleetError
from kanoclip.train.backbones import get_backbone
from kanoclip.train.weights import load, published
from kanoclip.train.weights.load import load_clip

OPENAI = ["vit-l-14-336", "vit-b-16", "vit-l-14"]
TINY = get_backbone("random-tiny")


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
    assert ("is a folder" in message) == path.is_dir()


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

    monkeypatch.setattr(load, "download_pretrained", fail)
    with pytest.raises(CheckpointError) as caught, torch.device("meta"):
        load_clip(get_backbone(name))
    message = str(caught.value)
    hub = open_clip.pretrained.get_pretrained_cfg(get_backbone(name).open_clip_name, "openai")["hf_hub"]
    assert "\n" not in message
    assert name in message and f"https://huggingface.co/{hub.rstrip('/')} " in message
    assert "open_clip_model.safetensors" in message and "--weights FILE" in message and "--weights none" in message


def test_downloaded_weights(monkeypatch, saved, clip):
    asked = []
    monkeypatch.setattr(load, "get_pretrained_cfg", lambda *names: {"names": names})
    monkeypatch.setattr(load, "download_pretrained", lambda cfg: asked.append(cfg["names"]) or str(saved))
    published = replace(TINY, tag="openai")
    loaded, weights = load_clip(published)
    assert asked == [(None, "openai")]
    assert torch.equal(loaded.visual.proj, clip.visual.proj)
    assert weights.origin == "openai" and weights.trained and weights.sha256
    assert not load_clip(published, "none")[1].trained
    assert len(asked) == 1


def test_a_download_is_what_the_hubs_hash_says_or_is_thrown_away(tmp_path, monkeypatch, saved):
    """huggingface_hub checks how long a file is, and open_clip nothing."""
    blob, link = tmp_path / "blobs" / hashlib.sha256(saved.read_bytes()).hexdigest(), tmp_path / "snapshots" / "x"
    for folder in (blob.parent, link.parent):
        folder.mkdir()
    blob.write_bytes(saved.read_bytes())
    link.symlink_to(blob)
    monkeypatch.setattr(load, "get_pretrained_cfg", lambda *names: {"hf_hub": "timm/tiny/"})
    monkeypatch.setattr(load, "download_pretrained", lambda cfg: str(link))
    tagged = replace(TINY, tag="openai")
    assert load_clip(tagged)[1].trained
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1  # the weights alone would still be read
    blob.write_bytes(content)
    with pytest.raises(FleetError, match="hf://timm/tiny/x is not what its hash says"):
        load_clip(tagged)
    assert not blob.exists() and not link.is_symlink()
