import json

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from kanoclip.runtime.errors import TrainingError
from kanoclip.train.backbones import get_backbone
from kanoclip.train.checkpoint import build_model, load_checkpoint, save_checkpoint
from kanoclip.train.model.kanoclip import ModelConfig
from kanoclip.train.nano.checkpoints import halve, halve_checkpoint, soften


def test_half_precision_keeps_values_and_refuses_what_does_not_fit(tmp_path):
    save_file({"a": torch.tensor([0.5, 1e-3])}, tmp_path / "s.safetensors")
    halve(tmp_path / "s.safetensors", tmp_path / "h.safetensors")
    stored = load_file(tmp_path / "h.safetensors")["a"]
    assert stored.dtype == torch.float16 and stored.tolist() == pytest.approx([0.5, 1e-3], rel=1e-3)
    save_file({"a": torch.tensor([1e6])}, tmp_path / "s.safetensors")
    with pytest.raises(TrainingError, match=r"a in .* does not fit"):
        halve(tmp_path / "s.safetensors", tmp_path / "h.safetensors")
    assert load_file(tmp_path / "h.safetensors")["a"].tolist() == pytest.approx([0.5, 1e-3], rel=1e-3)


def test_softened_weights_lie_half_way_to_the_first_values(tmp_path):
    clip = tmp_path / "clip.safetensors"
    save_file(open_clip.CLIP(**get_backbone("random-tiny").architecture()).state_dict(), clip)
    loaded = build_model(ModelConfig("random-tiny", (48, 48)), str(clip), seed=7)
    first = {name: value.clone() for name, value in loaded.model.learnable().items()}
    moved = {name: value + 0.5 for name, value in first.items()}
    save_checkpoint(tmp_path / "l.safetensors", loaded.model, loaded.weights, learned=moved, training={"epochs": 1})
    soften(tmp_path / "l.safetensors", clip, tmp_path / "s.safetensors", seed=7)
    for name, value in load_checkpoint(tmp_path / "s.safetensors", str(clip)).model.learnable().items():
        torch.testing.assert_close(value, first[name] + 0.25)
    assert json.loads((tmp_path / "s.json").read_text())["training"] == {"epochs": 1}


def test_a_checkpoint_in_half_precision_is_read_like_any_other_and_keeps_how_it_was_made(tmp_path):
    source, target = tmp_path / "learnt.safetensors", tmp_path / "half.safetensors"
    clip = tmp_path / "clip.safetensors"
    save_file(open_clip.CLIP(**get_backbone("random-tiny").architecture()).state_dict(), clip)
    loaded = build_model(ModelConfig("random-tiny", (48, 48)), str(clip))
    save_checkpoint(source, loaded.model, loaded.weights, training={"epochs": 3})
    halve_checkpoint(source, clip, target)
    again = load_checkpoint(target, str(clip)).model.learnable()
    for name, value in loaded.model.learnable().items():
        assert torch.equal(again[name], value.half().float()), name
    assert target.stat().st_size < 0.6 * source.stat().st_size
    assert json.loads(target.with_suffix(".json").read_text())["training"] == {"epochs": 3}

    learnt = dict(loaded.model.learnable())
    first = next(iter(learnt))
    save_checkpoint(source, loaded.model, loaded.weights, learned={**learnt, first: learnt[first] + 1e6})
    with pytest.raises(TrainingError, match=f"{first} in .* does not fit"):
        halve_checkpoint(source, clip, target)
