from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from kanoclip.benchmarks.studies.graphs.tiles import SINGLE, TOGETHER, WHOLE, main


@pytest.fixture
def dynamic(make_toy_bundle, tmp_path):
    return make_toy_bundle(tmp_path / "toy.kanoclip", dynamic=True, max_batch=3)


def test_a_frames_tiles_together_and_one_by_one(dynamic, tmp_path):
    output = tmp_path / "result.json"
    arguments = ["--bundle", str(dynamic), "--backend", "onnxruntime", "--frames", "8", "--repeat", "1"]
    done = CliRunner().invoke(main, [*arguments, "--output", str(output)])
    assert done.exit_code == 0, done.output
    told = json.loads(output.read_text())
    assert told["tiles"] == "3x1"
    assert [case["case"] for case in told["cases"]][:3] == [WHOLE, SINGLE, TOGETHER]
    assert all(case["fps"] > 0 for case in told["cases"]) and told["cases"][1]["time_ratio"] == 1


def test_what_cannot_be_compared(dynamic, toy_bundle):
    done = CliRunner().invoke(main, ["--bundle", str(toy_bundle)])
    assert done.exit_code == 2 and "--dynamic-batch" in done.output
    done = CliRunner().invoke(main, ["--bundle", str(dynamic), "--tiles", "5"])
    assert done.exit_code == 2 and "ROWSxCOLUMNS" in done.output
