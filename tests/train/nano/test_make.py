import json

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.errors import KanoclipError, TrainingError
from kanoclip.train.backbones import get_backbone
from kanoclip.train.checkpoint import build_model, load_checkpoint, save_checkpoint
from kanoclip.train.model.kanoclip import ModelConfig
from kanoclip.train.nano.make import Scale, Sources, Step, begin, follow, halve, halve_checkpoint, plan, soften

NOTHING = Sources(None, None)


@pytest.mark.nightly
def test_the_whole_recipe_in_small_makes_a_trained_bundle(tmp_path, capsys):
    """Every command of the recipe for real, with so little of everything that it knows nothing."""
    scale = Scale(images=8, steps=2, mixed=2, others=1, epochs=1, statistics=25)
    begin(tmp_path, NOTHING)
    # without thresholds, which so few images cannot give, and int8
    steps = plan(tmp_path, scale, NOTHING, workers=1)[:-3]
    follow(steps)
    assert all(step.output.exists() for step in steps)
    manifest = Bundle.open(tmp_path / "nano.kanoclip").manifest
    assert manifest.precision == "fp32" and manifest.model.trained and manifest.descriptor is not None
    stamps = [step.output.stat().st_mtime_ns for step in steps]
    capsys.readouterr()
    follow(steps)
    assert capsys.readouterr().err.count("there already") == len(steps)
    assert stamps == [step.output.stat().st_mtime_ns for step in steps]


def test_a_folder_of_another_commit_is_refused_and_stays(tmp_path):
    begin(tmp_path, NOTHING)
    begin(tmp_path, NOTHING)
    (tmp_path / "commit").write_text("0123456789abcdef\n")
    (tmp_path / "learned.safetensors").write_bytes(b"hours")
    with pytest.raises(TrainingError, match=r"was begun by commit 0123456789ab, this is .*: check that one out"):
        begin(tmp_path, NOTHING)
    assert (tmp_path / "learned.safetensors").read_bytes() == b"hours"


@pytest.mark.parametrize("make", [lambda folder: None, lambda folder: folder.mkdir()])
def test_a_folder_of_photographs_that_is_none_is_refused_before_anything_is_made(tmp_path, make):
    make(tmp_path / "photos")
    with pytest.raises(KanoclipError, match=str(tmp_path / "photos")):
        begin(tmp_path / "out", Sources(tmp_path / "photos", None))
    assert not (tmp_path / "out" / "commit").exists()


def test_after_a_stop_only_the_rest_is_done(tmp_path):
    done = []

    def make(name, works=True):
        def run():
            done.append(name)
            if not works:
                raise TrainingError("no power")
            (tmp_path / name).touch()

        return Step(name, tmp_path / name, run)

    with pytest.raises(TrainingError):
        follow([make("a"), make("b", works=False), make("c")])
    follow([make("a"), make("b"), make("c")])
    assert done == ["a", "b", "b", "c"]


def test_a_step_that_fails_says_that_the_rest_is_kept(tmp_path):
    _, second, *_ = plan(tmp_path, Scale(), NOTHING)
    with pytest.raises(TrainingError, match=r"stem_statistics ended with 1: .*goes on from here"):
        second.run()  # without the weights of the first


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
