"""Bundles in turns: each engine and bundle once, compared with those before it."""

from __future__ import annotations

import json
import time

import pytest
from click.testing import CliRunner

from kanoclip.benchmarks.studies.graphs import bundles as module
from kanoclip.runtime.bundle.bundle import Bundle


@pytest.fixture
def two(make_toy_bundle, tmp_path):
    """Of other sizes, and of more inputs."""
    return [make_toy_bundle(tmp_path / "one.kanoclip"), make_toy_bundle(tmp_path / "two.kanoclip", grid=(4, 4))]


def test_each_against_those_before_it(two, monkeypatch):
    class Slow:
        def __init__(self, seconds):
            self.seconds = seconds

        def run(self, frames, indices):
            time.sleep(self.seconds)

        def close(self):
            self.seconds = None

    made = {}

    def create(bundle, engine, device, threads):
        assert (device, threads) == ("cpu", 1)
        return made.setdefault((engine, bundle.root), Slow(0.004 if bundle.root == two[0] else 0.016))

    monkeypatch.setattr(module, "create_backend", create)
    opened = [Bundle.open(place) for place in (*two, two[1])]
    rows = module.measure(opened, ("a", "b"), 1, 3)
    assert [row["engine"] for row in rows] == ["a"] * 3 + ["b"] * 3
    assert [len(row["of"]) for row in rows] == [0, 1, 2] * 2
    # Sleeps are never shorter than asked for: however busy the machine is, the longer one is at least this long.
    assert all(row["milliseconds"] >= 16 for row in rows[1:3])
    assert all(backend.seconds is None for backend in made.values())


def test_the_command(two, tmp_path):
    output = tmp_path / "found.json"
    arguments = [*map(str, two), "--engine", "onnxruntime", "--rounds", "3", "--output", str(output)]
    done = CliRunner().invoke(module.main, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(output.read_text())
    assert [len(row["of"]) for row in found["rows"]] == [0, 1] and found["threads"] == 1
    assert found["rows"][1]["of"][0] > 0
    alone = CliRunner().invoke(module.main, [str(two[0])])
    assert alone.exit_code == 2 and "two bundles or more" in alone.output
