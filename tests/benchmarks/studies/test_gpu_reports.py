from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from kanoclip.benchmarks.studies.gpu_reports import HEAD, main, row
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.engines.doctor import Machine, report_of
from kanoclip.runtime.engines.reference import Comparison
from kanoclip.runtime.errors import BackendError


def machine(*gpus, jetson=None):
    return Machine("3.12.3", "Linux 6.8, x86_64", 8, gpus, jetson, {"onnxruntime-gpu": "1.31.1"}, ())


def comparison(drift=2e-4, score=1e-4, fused=None):
    return Comparison("onnxruntime-cuda", 4, drift, score, 1e-3, 1e-4, 3.456, None, fused)


@pytest.fixture
def report(toy_bundle):
    bundle = Bundle.open(toy_bundle)

    def make(outcome, *gpus, backend="onnxruntime", **more):
        return report_of(bundle, machine(*gpus, **more), backend, "cuda", outcome)

    return make


def test_a_row_of_each_outcome(report, toy_bundle):
    gpu = "NVIDIA RTX 4070, 8.9, 580.82.07, 12282 MiB"
    good = report(comparison(fused=8), gpu)
    assert row(good) == [
        "NVIDIA RTX 4070", "580.82.07", "onnxruntime 1.31.1", "toy, fp32, batch 1", "onnxruntime-cuda agrees",
        "2e-04, 1e-04", "3.46", "8",
    ]  # fmt: skip
    assert row(report(comparison(float("nan")), gpu))[4:6] == ["onnxruntime-cuda DRIFTS", "NaN, 1e-04"]
    lost = report(BackendError(f"ONNX Runtime cannot load {toy_bundle}/model.onnx: check the driver"), jetson="R36")
    assert row(lost)[0] == "Jetson, R36" and str(toy_bundle) not in json.dumps(lost)
    assert row(lost)[4] == "did not run: ONNX Runtime cannot load BUNDLE/model.onnx: check the driver"


def test_what_strangers_send_is_text_and_nothing_else(report):
    hostile = report(comparison(), "a|b <img src=x> [c](http://d) \x1b[31m\n, 8.9, 1")
    (cell, *_) = row(hostile)
    for sign in "|<[":
        assert cell.count(sign) == cell.count(f"\\{sign}") > 0
    assert cell.isprintable()


def test_a_pages_table_is_replaced_and_nothing_else(report, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.json").write_text(json.dumps(report(comparison(), "A, 8.9, 580")))
    (tmp_path / "in" / "bench.json").write_text('{"format": "kanoclip-bench", "version": 1}')
    (tmp_path / "in" / "broken.json").write_text("[" * 5000)
    page = tmp_path / "page.md"
    page.write_text(f"# What ran\n\n| {' | '.join(HEAD)} |\n|---|\n| old |\n\nAfter it.\n")
    done = CliRunner().invoke(main, [str(tmp_path / "in"), "--output", str(page)])
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert text.startswith("# What ran\n\n| GPU |") and text.endswith("\n\nAfter it.\n")
    assert "| old |" not in text and text.count("\n| A |") == 1
    refused = CliRunner().invoke(main, [str(tmp_path / "in" / "bench.json")])
    assert refused.exit_code == 1 and "is no report: kanoclip-doctor --report" in refused.output
