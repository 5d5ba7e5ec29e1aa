from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from kanoclip.benchmarks.compare import main, summarise, take_turns


def test_runners_take_turns_and_warmup_does_not_count():
    order = []
    runners = {name: lambda frame, name=name: order.append(name) for name in "ab"}
    spent = take_turns(runners, np.zeros(1), rounds=3, warmup=2)
    assert order == ["a", "a", "b", "b", *"ababab"]
    assert [len(times) for times in spent.values()] == [3, 3]


def test_ratio_is_of_each_round_and_share_is_of_the_peak():
    # A machine that is half as fast in the second half: each round's ratio still tells the truth.
    spent = {"a": [10.0, 10.0, 20.0, 20.0], "b": [5.0, 5.0, 10.0, 10.0]}
    found = summarise(spent, gflop=3.0, peak_gflops=400.0)
    assert found["b"]["ratio"] == 0.5 and found["a"]["ratio"] == 1.0
    assert found["b"]["share_of_gemm_peak"] == pytest.approx(3.0 / 7.5e-3 / 400)
    assert found["a"]["p50_ms"] == 15.0


def test_torch_and_onnxruntime_on_the_cpu(tmp_path):
    arguments = ["--backbone", "random-tiny", "--rounds", "2", "--warmup", "1", "--output", str(tmp_path / "o.json")]
    done = CliRunner().invoke(
        main, [*arguments, "--runner", "torch", "--runner", "onnxruntime", "--runner", "tensorrt"]
    )
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "o.json").read_text())
    assert list(told["runners"]) == ["torch", "onnxruntime"], "what is not installed is left out"
    assert told["runners"]["torch"]["ratio"] == 1.0 and told["runners"]["onnxruntime"]["p50_ms"] > 0
    assert told["peak"]["gemm_gflops"] > 1 and told["peak"]["copy_gb_s"] > 0.1
