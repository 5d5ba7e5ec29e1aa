import pytest
import torch
from safetensors.torch import load_file

from kanoclip.runtime.errors import TrainingError
from kanoclip.train.backbones import get_backbone, load_clip
from kanoclip.train.nano import pretrain as module
from kanoclip.train.nano.pretrain import PretrainConfig, pretrain

CONFIG = PretrainConfig("random-tiny", image_size=64, steps=6, batch_size=4, warmup_steps=2)


def run(config, output, **options):
    return list(pretrain(config, output, workers=0, save_minutes=options.get("save_minutes", 1e9)))


def test_weights_are_a_clip_of_the_backbone(tmp_path):
    (record,) = run(CONFIG, tmp_path / "w.safetensors")
    assert record["step"] == 6 and {"loss", "contrastive", "verdict", "dense"} <= set(record)
    _, weights = load_clip(get_backbone("random-tiny"), str(tmp_path / "w.safetensors"))
    assert weights.trained
    torch.manual_seed(CONFIG.seed)
    first = module.Pretraining(CONFIG).clip.state_dict()
    stored = load_file(tmp_path / "w.safetensors")
    assert stored["visual.positional_embedding"].shape == (37, 64), "at the backbone's own 48 px, not 64"
    moved = [
        name for name, value in first.items() if value.shape == stored[name].shape and not value.equal(stored[name])
    ]
    for part in ("visual.conv1", "visual.transformer.resblocks.3.attn.in_proj_weight", "transformer.resblocks.0"):
        assert any(name.startswith(part) for name in moved), part


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    run(CONFIG, tmp_path / "whole.safetensors")
    output = tmp_path / "parts.safetensors"
    save = module._save

    def stop_after_three(path, config, model, optimizer, step):
        save(path, config, model, optimizer, step)
        if step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "_save", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        run(CONFIG, output, save_minutes=0)
    assert not output.exists()
    with pytest.raises(TrainingError, match="other settings"):
        run(PretrainConfig("random-tiny", image_size=64, steps=6, batch_size=4, warmup_steps=2, lr=0.5), output)
    monkeypatch.undo()
    torch.manual_seed(123)
    run(CONFIG, output)
    one, other = load_file(tmp_path / "whole.safetensors"), load_file(output)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not output.with_suffix(".state.safetensors").exists()
