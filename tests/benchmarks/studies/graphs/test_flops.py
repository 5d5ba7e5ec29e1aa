from __future__ import annotations

import json
import subprocess
import sys

import pytest

from kanoclip.benchmarks.studies.graphs.flops import plain_tower_flops
from kanoclip.runtime.bundle.bundle import find_bundle


def test_plain_tower_is_what_a_vit_costs():
    """12 N C^2 multiply-adds of weights and 2 N^2 C of attention a block, the patch embedding and the projection."""
    tokens, width, layers, patch, joint = 37, 64, 4, 8, 64
    block = 12 * tokens * width**2 + 2 * tokens**2 * width
    want = 2 * (layers * block + (tokens - 1) * width * patch**2 * 3 + width * joint)
    assert sum(plain_tower_flops("random-tiny", (48, 48)).values()) == pytest.approx(want, rel=0.02)


@pytest.mark.nightly
def test_shipped_graph_costs_at_most_a_quarter_more_than_its_tower(tmp_path):
    bundle = find_bundle(None, tmp_path)
    command = [sys.executable, "-m", "kanoclip.benchmarks.studies.graphs.flops", str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert 1.0 < json.loads(done.stdout)["ratio"] <= 1.25
