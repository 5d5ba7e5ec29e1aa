"""Checkpoints: bit for bit there and back, and one line for everything that is wrong with one."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kanoclip.runtime.errors import CheckpointError
from kanoclip.runtime.system import paths
from kanoclip.train.checkpoint import LoadedModel, build_model, load_checkpoint, save_checkpoint
from kanoclip.train.model.kanoclip import ModelConfig
from kanoclip.train.weights.load import Weights

SEEDED = Weights("seeded:0", None, trained=False)
DEFAULT = ModelConfig("random-tiny", (48, 48))


def small(**options) -> ModelConfig:
    return ModelConfig("random-tiny", options.pop("image_size", (48, 48)), **options)


@pytest.fixture
def built(shake):
    """An untrained model whose learned tensors have been moved."""
    loaded = build_model(DEFAULT, "none")
    shake(loaded.model.head, seed=5)
    shake(loaded.model.prompts, seed=6)
    return loaded


@pytest.fixture
def saved(tmp_path, built):
    path = tmp_path / "run.safetensors"
    save_checkpoint(path, built.model, built.weights)
    return path


@pytest.fixture
def weights_file(tmp_path, clip):
    """A file of random-tiny's weights, as if published."""
    path = tmp_path / "clip.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in clip.state_dict().items()}, path)
    return path


def refused(path: Path, weights: str = "auto") -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, weights)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path.with_suffix("")) in message
    return message


def edit(path: Path, **changes) -> None:
    beside = path.with_suffix(".json")
    record = json.loads(beside.read_text())
    for name, value in changes.items():
        (record if name in record else record["config"])[name] = value
    beside.write_text(json.dumps(record))


@pytest.mark.parametrize(
    "config",
    [
        DEFAULT,
        small(image_size=(32, 64), prompt_length=3, global_token="local"),
        small(bicmci=False),
        small(conv_adapter=False, vv=False),
        small(bicmci=False, conv_adapter=False),
        small(prompts="template"),
        small(prompts="handcrafted"),
    ],
)
def test_round_trip_is_bit_for_bit(tmp_path, shake, normal, config):
    loaded = build_model(config, "none")
    shake(loaded.model.head, seed=5)
    path = tmp_path / "a.b.safetensors"
    save_checkpoint(path, loaded.model, loaded.weights)
    again = load_checkpoint(path)
    assert again.model.config == config
    assert again.weights == loaded.weights
    assert again.checkpoint_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not again.model.training
    state = again.model.state_dict()
    assert state.keys() == loaded.model.state_dict().keys()
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(state[name], tensor), name
    pixels = normal(1, 3, *config.image_size)
    with torch.no_grad():
        outputs = [m(pixels, m.text_features(["nut"])) for m in (loaded.model, again.model)]
    assert torch.equal(outputs[0].map, outputs[1].map) and torch.equal(outputs[0].score, outputs[1].score)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.b.json", "a.b.safetensors"]


def test_building_is_reproducible_and_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, same, other = (build_model(DEFAULT, "none", seed=seed).model for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.prompts.context, same.prompts.context)
    assert not torch.equal(first.prompts.context, other.prompts.context)
    assert torch.equal(first.tower.proj, other.tower.proj)


def test_holds_only_what_was_learned(saved, built):
    tensors = load_file(saved)
    assert {name.split(".")[0] for name in tensors} == {"prompts", "head"}
    assert set(tensors) == {name for name, p in built.model.named_parameters() if p.requires_grad}
    assert sum(tensor.numel() for tensor in tensors.values()) < 1e5
    record = json.loads(saved.with_suffix(".json").read_text())
    assert record["schema"] == 1 and record["config"]["backbone"] == "random-tiny"


def test_untrained_models_learn_nothing_by_being_saved(tmp_path):
    """A checkpoint of zero-initialised outputs must not come back as something else."""
    loaded = build_model(DEFAULT, "none")
    save_checkpoint(tmp_path / "x.safetensors", loaded.model, loaded.weights)
    up = load_checkpoint(tmp_path / "x.safetensors").model.head.adapter.up
    assert torch.count_nonzero(up.weight) == 0 and torch.count_nonzero(up.bias) == 0


@pytest.mark.parametrize("missing", [".safetensors", ".json"])
def test_missing_file(saved, missing):
    saved.with_suffix(missing).unlink()
    message = refused(saved)
    assert saved.with_suffix(missing).name in message


def test_missing_folder(tmp_path):
    refused(tmp_path / "nowhere" / "x.safetensors")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "3",
        '"text"',
        "{}",
        '{"schema": 1}',
        '{"schema": 1, "config": null, "backbone_sha256": null}',
    ],
)
def test_broken_json(saved, text):
    saved.with_suffix(".json").write_text(text)
    assert "run.json" in refused(saved)


def test_json_that_is_not_text(saved):
    saved.with_suffix(".json").write_bytes(b"\xff\xfe\x00\x80")
    assert "run.json" in refused(saved)


@pytest.mark.parametrize("schema", [0, 2, "1", None])
def test_unknown_schema(saved, schema):
    edit(saved, schema=schema)
    message = refused(saved)
    assert "run.json" in message and "schema" in message


def test_unknown_and_missing_config_fields(saved):
    record = json.loads(saved.with_suffix(".json").read_text())
    record["config"]["temperature"] = 0.07
    saved.with_suffix(".json").write_text(json.dumps(record))
    assert "temperature" in refused(saved)
    del record["config"]["temperature"], record["config"]["vv"]
    saved.with_suffix(".json").write_text(json.dumps(record))
    assert "vv" in refused(saved)


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone": "vit-x"},
        {"backbone": None},
        {"backbone": ["nano"]},
        {"image_size": [48]},
        {"image_size": [48, True]},
        {"image_size": "48"},
        {"image_size": [48.5, 48]},
        {"image_size": ["48", "48"]},
        {"image_size": [48, None]},
        {"image_size": [50, 48]},
        {"image_size": [0, 48]},
        {"image_size": [-48, 48]},
        {"prompts": "learnt"},
        {"prompt_length": 0},
        {"prompt_length": 65},
        {"prompt_length": "12"},
        {"prompt_length": 12.5},
        {"prompt_length": True},
        {"global_token": "cls"},
        {"vv": 1},
        {"bicmci": "yes"},
        {"conv_adapter": None},
        {"backbone_sha256": 7},
    ],
    ids=str,
)
def test_config_with_a_wrong_value(saved, changes):
    edit(saved, **changes)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"bicmci": False},
        {"conv_adapter": False},
        {"prompts": "handcrafted"},
        {"prompt_length": 11},
    ],
    ids=str,
)
def test_checkpoint_of_another_architecture(saved, changes):
    edit(saved, **changes)
    message = refused(saved)
    assert "architecture" in message and saved.name in message


def test_checkpoint_that_names_another_backbone(saved):
    edit(saved, backbone="nano", image_size=[256, 256])
    message = refused(saved)
    assert "other weights of nano" in message and saved.name in message


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "float8", "nan", "infinity"])
def test_wrong_tensors(saved, change):
    tensors = load_file(saved)
    if change == "missing":
        del tensors["head.adapter.up.bias"]
    elif change == "extra":
        tensors["tower.proj"] = torch.zeros(64, 64)
    elif change == "shape":
        tensors["head.adapter.up.bias"] = torch.zeros(1, 64)  # load_state_dict would not broadcast it, nor must this
    elif change == "float8":
        tensors["head.adapter.up.bias"] = tensors["head.adapter.up.bias"].to(torch.float8_e4m3fn)
    else:
        tensors["head.adapter.up.bias"][3] = float(change)
    save_file(tensors, saved)
    message = refused(saved)
    assert ("tower.proj" if change == "extra" else "head.adapter.up.bias") in message
    assert ("NaN" in message) == (change in ("nan", "infinity"))


@pytest.mark.parametrize("content", ["empty", "noise", "cut header", "cut", "longer"])
def test_damaged_tensors(saved, content):
    whole = saved.read_bytes()
    damaged = {
        "empty": b"",
        "noise": bytes(range(256)) * 8,
        "cut header": whole[:100],
        "cut": whole[:-1],
        "longer": whole + b"\0",
    }
    saved.write_bytes(damaged[content])
    assert "safetensors" in refused(saved)


def test_a_clone_without_its_large_files(saved):
    saved.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 4718592\n")
    assert "is a Git LFS pointer to 4 MiB, not the weights: run `git lfs pull`" in refused(saved)


def test_weights_it_was_not_trained_on(tmp_path, weights_file, shake, make_clip):
    loaded = build_model(DEFAULT, str(weights_file))
    path = tmp_path / "run.safetensors"
    save_checkpoint(path, loaded.model, loaded.weights)
    assert load_checkpoint(path, str(weights_file)).weights == loaded.weights
    assert loaded.weights.sha256[:12] in refused(path, "none")
    other = tmp_path / "other.safetensors"
    save_file({n: t.contiguous() for n, t in shake(make_clip(), seed=9).state_dict().items()}, other)
    message = refused(path, str(other))
    assert "other.safetensors" in message and "--weights" in message


def test_trained_on_seeded_weights_it_does_not_take_published_ones(saved, weights_file):
    message = refused(saved, str(weights_file))
    assert "clip.safetensors" in message and "seeded" in message


def test_missing_weights_file(saved, tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.safetensors"):
        load_checkpoint(saved, str(tmp_path / "nowhere.safetensors"))


@pytest.mark.parametrize("name", ["run.pt", "run", "run.safetensors.bak"])
def test_name_without_the_suffix_is_refused(tmp_path, built, name):
    with pytest.raises(CheckpointError, match=r"\.safetensors"):
        save_checkpoint(tmp_path / name, built.model, built.weights)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["nowhere/run.safetensors", "file/run.safetensors"])
def test_folder_that_cannot_be_written(tmp_path, built, where):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CheckpointError) as caught:
        save_checkpoint(tmp_path / where, built.model, built.weights)
    assert "cannot write" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("step", ["write", "replace"])
def test_interrupted_write_leaves_the_old_checkpoint(monkeypatch, saved, built, step):
    before = {path.name: path.read_bytes() for path in saved.parent.iterdir()}
    other = build_model(small(prompt_length=5), "none")

    def fail(beside, *_):
        if step == "write":
            Path(beside).write_bytes(b"half")
        raise OSError(28, "No space left on device", beside)

    monkeypatch.setattr(*((paths, "_write") if step == "write" else (os, "replace")), fail)
    with pytest.raises(CheckpointError, match="No space left"):
        save_checkpoint(saved, other.model, other.weights)
    monkeypatch.undo()
    for name, content in before.items():
        assert (saved.parent / name).read_bytes() == content
    again = load_checkpoint(saved)
    assert torch.equal(again.model.prompts.context, built.model.prompts.context)


def test_write_interrupted_between_its_two_files_is_noticed(monkeypatch, saved, built):
    """Same shapes, so that nothing but the record can tell that tensors and description are of two runs."""
    other = build_model(small(global_token="local"), "none")
    replace = os.replace

    def fail(beside, target):
        if Path(target) == saved:
            raise OSError(28, "No space left on device", beside)
        replace(beside, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(CheckpointError):
        save_checkpoint(saved, other.model, other.weights)
    monkeypatch.undo()
    try:
        again = load_checkpoint(saved)
    except CheckpointError:
        return
    assert again.model.config == built.model.config


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("prompts", ["learned", "template", "handcrafted"])
@pytest.mark.parametrize("checkpoint", ["0" * 64, None])
def test_trained(published, prompts, checkpoint):
    model = build_model(small(prompts=prompts), "none").model
    loaded = LoadedModel(model, Weights("file:x", "0" * 64, trained=published), checkpoint)
    assert loaded.trained == (published and (checkpoint is not None or prompts != "learned"))


def test_trained_of_models_that_were_built_and_loaded(saved, weights_file, tmp_path):
    assert not build_model(DEFAULT, "none").trained
    assert not load_checkpoint(saved).trained
    assert not build_model(DEFAULT, str(weights_file)).trained
    assert build_model(small(prompts="handcrafted"), str(weights_file)).trained
    loaded = build_model(DEFAULT, str(weights_file))
    save_checkpoint(tmp_path / "published.safetensors", loaded.model, loaded.weights)
    assert load_checkpoint(tmp_path / "published.safetensors", str(weights_file)).trained
