import dataclasses
import json

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from kanoclip.runtime.errors import TrainingError
from kanoclip.train.backbones import get_backbone
from kanoclip.train.model.towers.clip_vv import ClipVV
from kanoclip.train.nano import pretrain as module
from kanoclip.train.nano.pretrain import main, pretrain
from kanoclip.train.nano.pretraining.objective import PretrainConfig, Pretraining
from kanoclip.train.nano.tokens import TokenFiles
from kanoclip.train.weights.load import load_clip

CONFIG = PretrainConfig(steps=6, batch_size=4, warmup_steps=2)


@pytest.fixture
def run(small_nano, stem_file, drawn):
    def go(config, output, **options):
        options.setdefault("save_minutes", 1e9)
        return list(pretrain(config, output, load_file(stem_file), TokenFiles(drawn), **options))

    return go


@pytest.fixture
def stop_after(monkeypatch):
    """The process ends right after a state was saved; saved states are of every step."""
    save = module._save

    def stop(steps):
        def save_and_stop(path, config, model, optimizers, step):
            save(path, config, model, optimizers, step)
            if step == steps:
                raise KeyboardInterrupt

        monkeypatch.setattr(module, "_save", save_and_stop)

    return stop


def stopped(run, stop_after, config, output, steps):
    stop_after(steps)
    with pytest.raises(KeyboardInterrupt):
        run(config, output, save_minutes=0)
    return output.with_suffix(".state.safetensors")


def same(one, other):
    one, other = load_file(one), load_file(other)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_weights_are_a_clip_of_the_backbone_and_the_trunk_does_not_move(tmp_path, run, stem_file):
    (record,) = run(CONFIG, tmp_path / "w.safetensors")
    assert record["step"] == 6 and {"loss", "contrastive", "score", "dense", "probe"} <= set(record)
    assert 0 <= record["cell_auroc"] <= 1 and json.dumps(record)
    clip, weights = load_clip(get_backbone("nano"), str(tmp_path / "w.safetensors"))
    assert weights.trained
    stored, given = load_file(tmp_path / "w.safetensors"), load_file(stem_file)
    first = Pretraining(CONFIG, given).clip.state_dict()
    assert stored.keys() == first.keys()
    for name, value in given.items():
        assert torch.equal(stored[f"visual.conv1.{name}"], value), name
    moved = {name for name, value in first.items() if not torch.equal(value, stored[name])}
    for part in (
        "visual.conv1.token_project.weight",
        "visual.positional_embedding",
        "visual.class_embedding",
        "visual.transformer.resblocks.0.attn.in_proj_weight",
        "visual.transformer.resblocks.3.attn.in_proj_weight",  # the last one's is trained in parts
        "transformer.resblocks.0.mlp.c_fc.weight",
        "token_embedding.weight",
        "logit_scale",
    ):
        assert part in moved, part
    assert ClipVV(clip.visual, (64, 64))(torch.zeros(1, 3, 64, 64)).global_token.isfinite().all()


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, run, stop_after):
    run(CONFIG, tmp_path / "whole.safetensors")
    output = tmp_path / "parts.safetensors"
    state = stopped(run, stop_after, CONFIG, output, 3)
    assert state.is_file() and not output.exists()
    stop_after(None)
    torch.manual_seed(123)
    run(CONFIG, output)
    assert same(tmp_path / "whole.safetensors", output) and not state.exists()


def test_another_seed_is_another_run(tmp_path, run):
    for seed in (0, 1):
        run(dataclasses.replace(CONFIG, steps=1, seed=seed), tmp_path / f"{seed}.safetensors")
    assert not same(tmp_path / "0.safetensors", tmp_path / "1.safetensors")


def refused(run, config, output, match):
    state = output.with_suffix(".state.safetensors")
    before = state.read_bytes()
    with pytest.raises(TrainingError, match=match) as caught:
        run(config, output)
    assert "\n" not in str(caught.value) and str(state) in str(caught.value)
    assert state.read_bytes() == before and not output.exists(), "nothing saved is lost"


def test_a_state_of_other_settings_or_of_another_commit_is_refused_and_kept(tmp_path, run, stop_after, monkeypatch):
    output = tmp_path / "w.safetensors"
    monkeypatch.setattr(module, "own_commit", lambda: "a" * 40)
    stopped(run, stop_after, CONFIG, output, 2)
    for changes in ({"lr": 0.5}, {"tokens": "others"}, {"steps": 9}):
        changed = dataclasses.replace(CONFIG, **changes)
        refused(run, changed, output, "is of a run with other settings: give the same ones, or remove it")
    monkeypatch.setattr(module, "own_commit", lambda: "b" * 40)
    refused(run, CONFIG, output, "saved by commit aaaaaaaaaaaa, this is bbbbbbbbbbbb: check that one out to go on")
    monkeypatch.setattr(module, "own_commit", lambda: "a" * 40)
    stop_after(None)
    (record,) = run(CONFIG, output)
    assert record["step"] == 6 and output.exists()


def test_what_is_no_state_is_refused_and_kept(tmp_path, run):
    output = tmp_path / "w.safetensors"
    state = output.with_suffix(".state.safetensors")
    save_file({"a": torch.zeros(3)}, state)
    refused(run, CONFIG, output, "is no saved state .*: move the file away to begin anew")
    save_file({"a": torch.zeros(3)}, state, {"other": "x"})
    refused(run, CONFIG, output, "is no saved state")
    save_file({"a": torch.zeros(3)}, state, {"state": "{"})
    refused(run, CONFIG, output, "is no saved state")
    for content in (b"", b"x" * 3000):
        state.write_bytes(content)
        refused(run, CONFIG, output, "is no saved state")
    # As before commits were noted.
    record = {"config": dataclasses.asdict(CONFIG), "step": 2}
    save_file({"a": torch.zeros(3)}, state, {"state": json.dumps(record)})
    refused(run, CONFIG, output, "was saved by commit unknown")


def test_at_a_flat_rate_a_stopped_run_may_be_made_longer(tmp_path, run, stop_after):
    flat = dataclasses.replace(CONFIG, decay=0.0, steps=4)
    run(flat, tmp_path / "whole.safetensors")
    stopped(run, stop_after, dataclasses.replace(flat, steps=3), tmp_path / "longer.safetensors", 2)
    stop_after(None)
    run(flat, tmp_path / "longer.safetensors")
    assert same(tmp_path / "whole.safetensors", tmp_path / "longer.safetensors")


def test_a_loss_that_is_no_number_ends_the_run(tmp_path, run):
    with pytest.raises(TrainingError, match=r"no number at step .*--lr"):
        run(dataclasses.replace(CONFIG, steps=8, warmup_steps=0, lr=1e30), tmp_path / "w.safetensors")
    assert not (tmp_path / "w.safetensors").exists()


def test_the_rate_rises_stays_and_falls():
    config = PretrainConfig(steps=100, warmup_steps=10, decay=0.2)
    rates = [module._rate(step, config) for step in range(100)]
    assert rates[0] == 0.1 and rates[9:80] == [1.0] * 71 and rates[90] == 0.5 and rates[99] == 0.05
    flat = PretrainConfig(steps=100, warmup_steps=0, decay=0.0)
    assert {module._rate(step, flat) for step in range(100)} == {1.0}


def test_the_command_trains_and_knows_its_images_and_stem(tmp_path, small_nano, stem_file, drawn, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "pretrain", lambda config, *rest, **options: seen.append(config) or iter([{"step": 1}]))

    def command(stem=stem_file, tokens=drawn):
        arguments = ["--tokens", tokens, "--stem", stem, "--output", tmp_path / "w.safetensors", "--steps", 1]
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    done = command()
    assert done.exit_code == 0 and json.loads(done.output) == {"step": 1}
    changed = load_file(stem_file)
    changed["mean"] = changed["mean"] + 1
    save_file(changed, tmp_path / "other.safetensors")
    assert command(stem=tmp_path / "other.safetensors").exit_code == 0
    assert seen[0].steps == 1 and len({config.tokens for config in seen}) == 2, "the digest covers the stem"
    for arguments, said in (({"tokens": tmp_path}, "has no drawn images"), ({"stem": tmp_path / "no"}, "is no stem")):
        done = command(**arguments)
        assert done.exit_code == 1 and said in done.output and done.output.count("\n") == 1
