import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from kanoclip.runtime.errors import TrainingError
from kanoclip.train.backbones import get_backbone, load_clip
from kanoclip.train.nano import pretrain as module
from kanoclip.train.nano.objective import PretrainConfig, Pretraining
from kanoclip.train.nano.pretrain import pretrain

CONFIG = PretrainConfig("random-tiny", image_size=64, steps=6, batch_size=4, warmup_steps=2)


def run(config, output, **options):
    options.setdefault("save_minutes", 1e9)
    return list(pretrain(config, output, workers=0, **options))


def test_weights_are_a_clip_of_the_backbone(tmp_path):
    (record,) = run(CONFIG, tmp_path / "w.safetensors")
    assert record["step"] == 6 and {"loss", "contrastive", "verdict", "dense", "probe"} <= set(record)
    assert 0 <= record["cell_auroc"] <= 1 and json.dumps(record)
    _, weights = load_clip(get_backbone("random-tiny"), str(tmp_path / "w.safetensors"))
    assert weights.trained
    first = Pretraining(CONFIG).clip.state_dict()
    stored = load_file(tmp_path / "w.safetensors")
    assert stored["visual.positional_embedding"].shape == (37, 64), "at the backbone's own 48 px, not 64"
    moved = [
        name for name, value in first.items() if value.shape == stored[name].shape and not value.equal(stored[name])
    ]
    for part in ("visual.conv1", "visual.transformer.resblocks.3.attn.in_proj_weight", "transformer.resblocks.0"):
        assert any(name.startswith(part) for name in moved), part
    assert "logit_scale" in moved


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, monkeypatch, optimizer):
    config = PretrainConfig("random-tiny", image_size=64, steps=6, batch_size=4, warmup_steps=2, optimizer=optimizer)
    run(config, tmp_path / "whole.safetensors")
    output = tmp_path / "parts.safetensors"
    save = module._save

    def stop_after_three(path, config, model, optimizers, step):
        save(path, config, model, optimizers, step)
        if step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "_save", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        run(config, output, save_minutes=0)
    assert not output.exists()
    with pytest.raises(TrainingError, match="other settings"):
        run(PretrainConfig("random-tiny", image_size=64, steps=6, batch_size=4, warmup_steps=2, lr=0.5), output)
    monkeypatch.undo()
    torch.manual_seed(123)
    run(config, output)
    one, other = load_file(tmp_path / "whole.safetensors"), load_file(output)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not output.with_suffix(".state.safetensors").exists()


def test_at_a_flat_rate_a_stopped_run_may_be_made_longer(tmp_path, monkeypatch):
    flat = {"image_size": 64, "batch_size": 4, "warmup_steps": 2, "decay": 0.0}
    run(PretrainConfig("random-tiny", steps=4, **flat), tmp_path / "whole.safetensors")
    save = module._save

    def stop_after_two(path, config, model, optimizers, step):
        save(path, config, model, optimizers, step)
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "_save", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        run(PretrainConfig("random-tiny", steps=3, **flat), tmp_path / "longer.safetensors", save_minutes=0)
    monkeypatch.undo()
    run(PretrainConfig("random-tiny", steps=4, **flat), tmp_path / "longer.safetensors")
    one, other = load_file(tmp_path / "whole.safetensors"), load_file(tmp_path / "longer.safetensors")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_second_run_begins_with_the_weights_of_the_first(tmp_path):
    first = tmp_path / "first.safetensors"
    run(CONFIG, first)
    weights = load_file(first)
    model = Pretraining(PretrainConfig("random-tiny", image_size=48), weights)
    for name, value in model.clip.state_dict().items():
        assert value.equal(weights[name]), name
    assert float(model.scale.detach()) == pytest.approx(float(weights["logit_scale"]))
    assert model.vocabulary.whole().equal(weights["token_embedding.weight"])


def test_a_loss_that_is_no_number_ends_the_run(tmp_path):
    with pytest.raises(TrainingError, match=r"no number at step .*--lr"):
        run(
            PretrainConfig("random-tiny", image_size=64, steps=8, batch_size=4, warmup_steps=0, lr=1e30),
            tmp_path / "w.safetensors",
        )
    assert not (tmp_path / "w.safetensors").exists()


def test_the_rate_rises_stays_and_falls():
    config = PretrainConfig(steps=100, warmup_steps=10, decay=0.2)
    rates = [module._rate(step, config) for step in range(100)]
    assert rates[0] == 0.1 and rates[9:80] == [1.0] * 71 and rates[90] == 0.5 and rates[99] == 0.05
    flat = PretrainConfig(steps=100, warmup_steps=0, decay=0.0)
    assert {module._rate(step, flat) for step in range(100)} == {1.0}


@pytest.mark.nightly
@pytest.mark.skipif(shutil.which("c++") is None, reason="compiling the tower needs a C++ compiler")
def test_a_compiled_tower_learns_the_same(tmp_path):
    config = PretrainConfig("random-tiny", image_size=64, steps=2, batch_size=4, warmup_steps=2)
    records = {name: run(config, tmp_path / f"{name}.safetensors", compiled=name == "c") for name in ("c", "plain")}
    (compiled,), (plain,) = records["c"], records["plain"]
    assert compiled["loss"] == pytest.approx(plain["loss"], rel=0.02)
    one, other = (load_file(tmp_path / f"{name}.safetensors") for name in ("c", "plain"))
    assert one.keys() == other.keys()
