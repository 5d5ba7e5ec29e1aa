"""The measurement of bulk scoring, small."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from kanoclip.benchmarks.studies.streams.score import main, make_jpegs, reading, summary
from kanoclip.runtime.errors import KanoclipError


def test_reading():
    encoded = make_jpegs(2, 128, 96)
    spent = reading(encoded, (32, 32), repeat=2)
    assert list(spent) == ["decode", "resize", "measure"] and all(value > 0 for value in spent.values())


def test_a_failure_is_told():
    with pytest.raises(KanoclipError, match="kanoclip-score failed: error: no"):
        summary(1, "", "some\nerror: no\n")


@pytest.mark.nightly
@pytest.mark.timeout(180)
def test_small(toy_bundle, tmp_path):
    arguments = [str(toy_bundle), "--pictures", "20", "--rounds", "1", "--paths", "200", "--side", "16"]
    done = CliRunner().invoke(main, [*arguments, "--backend", "onnxruntime", "--output", str(tmp_path / "out.json")])
    assert done.exit_code == 0, (done.output, done.exception)
    result = json.loads((tmp_path / "out.json").read_text())
    turns = result["in_turns"]
    assert turns["tables_that_differ"] == 0
    assert turns["ratio"] == turns["pictures_per_s"]["2"][0] / turns["pictures_per_s"]["1"][0] > 0
    assert all(value > 0 for value in result["reading_cpu_ms"].values())
    assert 50_000 < result["bytes_a_picture"] < 500_000
    assert result["memory"]["pictures"] == 200 and result["memory"]["bytes_a_row"] > 20
    assert result["environment"]["cores"] >= 1
