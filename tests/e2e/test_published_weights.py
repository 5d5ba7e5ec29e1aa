"""With CLIP's published weights, which open_clip downloads: `pytest -m weights` where there is a network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXPORT = Path(sys.executable).with_name("kanoclip-export")
RUN = Path(sys.executable).with_name("kanoclip-run")
IMAGES = Path(__file__).parents[2] / "examples" / "hazelnut_toy" / "test"


@pytest.mark.weights
def test_handcrafted_prompts_tell_coloured_hazelnuts_from_good_ones(tmp_path):
    arguments = ["--backbone", "vit-b-16", "--prompts", "handcrafted", "--class", "hazelnut", "--fp16", "--json"]
    done = subprocess.run(
        [EXPORT, *arguments, "--parity-limit", "23"], cwd=tmp_path, capture_output=True, text=True, timeout=590
    )
    assert done.returncode == 0, done.stderr
    manifest = json.loads(done.stdout)
    assert manifest["model"]["trained"] is True and len(manifest["model"]["weights_sha256"]) == 64
    assert "UNTRAINED" not in done.stderr
    assert manifest["parity"]["auroc_graph"] > 0.6  # far from chance, which seeded weights would give
    run = subprocess.run([RUN, "--source", str(IMAGES)], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0 and "untrained" not in run.stderr
