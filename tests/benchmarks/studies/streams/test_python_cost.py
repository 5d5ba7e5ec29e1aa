from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from kanoclip.benchmarks.studies.streams.python_cost import CASES, InstantBackend, MemorySource, main, microseconds
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.detect.regions import find_regions


def test_the_instant_engine_shows_as_many_regions_as_asked_for():
    maps, scores = InstantBackend((64, 64), 1, 4, 3).run(MemorySource(1, (64, 64))._images[:2], None)
    assert maps.shape == (2, 64, 64) and scores.shape == (2,)
    assert len(find_regions(maps[1], 0.5, 0, 64, 64)) == 3


def test_a_slower_engine_is_not_taken_for_python_s_cost(toy_bundle, monkeypatch):
    import time

    quick = min(microseconds(Bundle.open(toy_bundle), 200, 1, 1, 0) for _ in range(3))
    answer = InstantBackend.run
    monkeypatch.setattr(InstantBackend, "run", lambda *args: time.sleep(0.002) or answer(*args))
    assert microseconds(Bundle.open(toy_bundle), 200, 1, 1, 0) < quick + 1000, "waiting takes no processor"


def test_the_command(tmp_path):
    output = tmp_path / "result.json"
    done = CliRunner().invoke(main, ["--frames", "150", "--repeat", "1", "--output", str(output)])
    assert done.exit_code == 0, done.output
    found = json.loads(output.read_text())
    assert [(case["lanes"], case["batch"], case["regions"]) for case in found["cases"]] == [
        (*case, regions) for case in CASES for regions in (0, 3)
    ]
    for case in found["cases"]:
        assert 20 < case["microseconds"]["median"] < 20_000
        assert case["microseconds"]["least"] == pytest.approx(case["microseconds"]["most"])
