from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from kanoclip.benchmarks.studies.accuracy import held_out
from kanoclip.benchmarks.studies.accuracy.held_out import main, mean_of, write_tower
from kanoclip.train.backbones import get_backbone
from kanoclip.train.weights.load import load_clip


@pytest.mark.parametrize("seeded", ["text", "all"])
def test_what_is_seeded_and_what_is_taught(tmp_path, seeded):
    taught = load_clip(get_backbone("nano"), "auto")[0].state_dict()
    for seed in (1, 2):
        write_tower("nano", "auto", seeded, seed, tmp_path / f"{seed}.safetensors")
    one, two = (load_file(tmp_path / f"{seed}.safetensors") for seed in (1, 2))
    kept = {name for name in taught if torch.equal(one[name], taught[name])}
    images = {name for name in taught if name.startswith("visual.")}
    assert kept >= images if seeded == "text" else not {name for name in kept if name.endswith("proj")}
    assert not torch.equal(one["text_projection"], taught["text_projection"])
    assert not torch.equal(one["text_projection"], two["text_projection"])
    # What is written is a whole backbone, under its own names.
    load_clip(get_backbone("nano"), str(tmp_path / "1.safetensors"))


def test_mean_is_over_categories_without_weights():
    rows = [{kind: dict.fromkeys(held_out.SHOWN, value) for kind in ("untrained", "trained")} for value in (0.2, 0.6)]
    assert mean_of(rows)["trained"]["aupro"] == pytest.approx(0.4)


def test_towers_do_not_share_checkpoints(monkeypatch, tmp_path):
    trained = []

    def kanoclip(*arguments):
        if arguments[0] == "train":
            trained.append(arguments[arguments.index("--output") + 1])
            trained[-1].touch(exist_ok=False)
        else:
            target = arguments[arguments.index("--output") + 1]
            value = 0.9 if "--checkpoint" in arguments else 0.5
            target.write_text(json.dumps({"mean": dict.fromkeys(held_out.SHOWN, value)}))

    monkeypatch.setattr(held_out, "kanoclip", kanoclip)
    for name in ("bolt", "nut"):
        for folder in ("train/good", "test/good", "test/bent", "ground_truth/bent"):
            (tmp_path / name / folder).mkdir(parents=True)
        for image in ("train/good/0.png", "test/good/0.png", "test/bent/0.png", "ground_truth/bent/0_mask.png"):
            (tmp_path / name / image).touch()
    output = tmp_path / "o.json"
    arguments = ["--root", str(tmp_path), "--seeded", "text", "--seeds", "2", "--output", str(output)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    told = json.loads(output.read_text())
    assert len(trained) == 4 and list(told["towers"]) == ["text seeded with 1", "text seeded with 2"]
    assert told["mean"]["trained"]["pixel_auroc"] == 0.9 and told["mean"]["untrained"]["pixel_auroc"] == 0.5
