from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from kanoclip.benchmarks.studies.graphs.batches import main
from kanoclip.runtime.system.hardware import workers_for


@pytest.fixture
def dynamic(make_toy_bundle, tmp_path):
    return make_toy_bundle(tmp_path / "toy.kanoclip", dynamic=True, max_batch=4)


def test_every_backend_lane_and_batch_is_compared(dynamic, tmp_path):
    output = tmp_path / "result.json"
    arguments = ["--bundle", str(dynamic), "--backend", "onnxruntime", "--batch", "1", "--batch", "4"]
    done = CliRunner().invoke(main, [*arguments, "--frames", "16", "--repeat", "1", "--output", str(output)])
    assert done.exit_code == 0, done.output
    cases = json.loads(output.read_text())["cases"]
    counts = range(1, workers_for(False, None) + 1)
    assert [(case["lanes"], case["batch"]) for case in cases] == [
        (workers, batch) for workers in counts for batch in (1, 4)
    ]
    first = {case["lanes"]: case["fps"] for case in cases if case["batch"] == 1}
    for case in cases:
        assert case["ratio_to_one_lane"] == pytest.approx(case["fps"] / first[1])
        assert case["ratio_to_these_lanes"] == pytest.approx(case["fps"] / first[case["lanes"]])


def test_a_bundle_that_cannot_take_the_batches(dynamic, toy_bundle):
    for bundle, batch in ((toy_bundle, 1), (dynamic, 8)):
        done = CliRunner().invoke(main, ["--bundle", str(bundle), "--batch", str(batch)])
        assert done.exit_code == 2 and "--dynamic-batch" in done.output
