"""A checkpoint on a hub: both files of one commit, read as any other checkpoint."""

from __future__ import annotations

import os
import subprocess
import sys

import click.testing
import pytest
import torch
from loopback_hub import Hub

from kanoclip.export.cli.command import command
from kanoclip.runtime.errors import CheckpointError, FleetError
from kanoclip.train.checkpoint import build_model, load_checkpoint, save_checkpoint
from kanoclip.train.model.kanoclip import ModelConfig
from kanoclip.train.weights.hub import fetch_checkpoint


@pytest.fixture
def hub(tmp_path, monkeypatch):
    made = Hub()
    loaded = build_model(ModelConfig("random-tiny", (48, 48)), "none", seed=4)
    save_checkpoint(tmp_path / "own.safetensors", loaded.model, loaded.weights)
    content = {end: (tmp_path / f"own.{end}").read_bytes() for end in ("safetensors", "json")}
    made.repositories["plant/line3"] = {
        **{f"kanoclip.{end}": one for end, one in content.items()},
        **{f"old/run.{end}": one for end, one in content.items()},
    }
    monkeypatch.setenv("HF_ENDPOINT", made.url)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    yield made
    made.close()


@pytest.mark.parametrize("text", ["plant/line3", "hf://plant/line3@main", "plant/line3/old/run.safetensors"])
def test_a_checkpoint_is_read_with_its_description(hub, text):
    path = fetch_checkpoint(text)
    again = load_checkpoint(path, "none")
    expected = build_model(ModelConfig("random-tiny", (48, 48)), "none", seed=4).model.learnable()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.model.learnable().items())
    # The description is asked for by the commit that the tensors came from.
    assert any(f"/resolve/{hub.commit}/" in where and where.endswith(".json") for _, where in hub.asked)


def test_what_is_no_checkpoint(hub):
    with pytest.raises(CheckpointError, match=r"ends in \.safetensors"):
        fetch_checkpoint("plant/line3/readme.md")
    with pytest.raises(FleetError, match="OWNER/NAME"):
        fetch_checkpoint("line3")
    with pytest.raises(FleetError, match="no such file"):
        fetch_checkpoint("plant/line3/new.safetensors")
    del hub.repositories["plant/line3"]["kanoclip.json"]
    with pytest.raises(FleetError, match=r"kanoclip\.json: the repository has no such file"):
        fetch_checkpoint("plant/line3")


def test_the_command_line(hub, tmp_path):
    runner = click.testing.CliRunner()
    done = runner.invoke(command, ["--from-hub", "plant/line3", "--checkpoint", str(tmp_path / "own.safetensors")])
    assert done.exit_code == 2 and "exclude each other" in done.output
    done = runner.invoke(command, ["--from-hub", "plant/line3", "--no-vv"])
    assert done.exit_code == 2 and "--no-vv is decided by the checkpoint" in done.output
    hub.fault = "401"
    done = runner.invoke(command, ["--from-hub", "plant/line3"])
    assert isinstance(done.exception, FleetError) and "no access: set HF_TOKEN" in str(done.exception)


def test_open_clips_own_downloads_send_no_telemetry_either():
    asserted = "from huggingface_hub import constants; assert constants.HF_HUB_DISABLE_TELEMETRY"
    script = f"import kanoclip.train.backbones; {asserted}"
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_TELEMETRY"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
