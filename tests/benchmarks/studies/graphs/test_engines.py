from __future__ import annotations

import json
import subprocess
import sys

import pytest

from kanoclip.train.backbones import get_backbone

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has wheels for x86-64 only")


def rows(folder, *arguments):
    command = [sys.executable, "-m", "kanoclip.benchmarks.studies.graphs.engines", *arguments]
    command += ["--output", str(folder / "r.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    result = json.loads((folder / "r.json").read_text())
    assert result["environment"]["tensorrt-rtx"]
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert printed == result["engines"]
    return result["backbone"], result["engines"]


@pytest.mark.nightly
def test_a_small_model_gives_a_row_for_each_engine(tmp_path):
    backbone, found = rows(tmp_path, "--backbone", "random-tiny", "--precision", "fp16")
    assert backbone == "random-tiny"
    assert [row["compute_capabilities"] for row in found] == [["7.5"], ["8.0", "8.6", "8.9", "12.0"]]
    for row in found:
        assert 0 < row["fused"] <= row["attention_blocks"] and row["engine_mb"] > 0.1
        assert row["map_drift"] < 2e-2 and row["quantisation"] is None and row["export"]["peak_mb"] > 100


ALL = ["8.0", "8.6", "8.9", "12.0"]


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("precision", "engines"),
    [
        ("fp16", [["7.5"], ALL]),
        ("bf16", [ALL]),
        ("int8", [ALL]),
        ("fp8", [["8.9", "12.0"]]),
    ],
)
def test_the_shipped_models_engines_have_all_attention_fused(tmp_path, precision, engines):
    backbone, found = rows(tmp_path, "--precision", precision)
    attentions = 2 * get_backbone("nano").architecture()["vision_cfg"]["layers"]  # the original and the V-V path
    assert backbone == "nano" and [row["compute_capabilities"] for row in found] == engines
    for row in found:
        assert row["precision"] == precision and row["fused"] == row["attention_blocks"] == attentions
        if precision in ("int8", "fp8"):
            assert row["quantisation"]["blocks_unquantised"] < row["quantisation"]["blocks"]
            assert row["quantisation"]["map_drift"] <= row["quantisation"]["target"]
