"""What an export leaves behind; all that it writes is test_cli_export's, in tests/e2e."""

from __future__ import annotations

import shutil

from kanoclip.export import pipeline
from kanoclip.runtime.cli.main import invoke
from kanoclip.train.checkpoint import build_model, save_checkpoint
from kanoclip.train.model.kanoclip import ModelConfig


def test_drift_writes_no_bundle(plain, tmp_path, monkeypatch, capsys):
    """A graph of other weights than the checkpoint's; one that overflows fp16 is nightly's."""
    loaded = build_model(ModelConfig("random-tiny", (48, 48)), "none")
    save_checkpoint(tmp_path / "c.safetensors", loaded.model, loaded.weights)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline, "write_onnx", lambda *given, **_: shutil.copy(plain("fp16"), given[4]))
    before = sorted(tmp_path.rglob("*"))
    options = ["--checkpoint", "c.safetensors", "--fp16", "--opset", "19", "--memory-rows", "0"]
    options += ["--parity-limit", "2"]
    assert invoke("kanoclip-export", "export", options) == 1
    told = capsys.readouterr()
    *_, line = told.err.splitlines()
    assert line.startswith("error: the fp16 graph drifts from torch: ") and line.endswith("no bundle written")
    assert told.out == "" and sorted(tmp_path.rglob("*")) == before
