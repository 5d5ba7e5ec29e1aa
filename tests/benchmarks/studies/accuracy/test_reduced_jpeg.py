from __future__ import annotations

import json

from click.testing import CliRunner

from kanoclip.benchmarks.studies.accuracy import reduced_jpeg


def test_both_ways_of_decoding_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(reduced_jpeg, "SIZES", ((320, 240), (2048, 1536)))
    output = tmp_path / "result.json"
    done = CliRunner().invoke(reduced_jpeg.main, ["--limit", "2", "--repeat", "3", "--output", str(output)])
    assert done.exit_code == 0, done.output
    found = json.loads(output.read_text())
    large = found["milliseconds"]["2048x1536"]
    assert 0 < large["reduced"] < large["full"], "a large image's decoding is what is saved"
    (drift,) = found["drift"].values()
    assert drift["pictures"] == 2
    # Another decoding is another image: no drift at all would mean that the same one was scored twice.
    assert 0 < drift["score"]["mean"] <= drift["score"]["most"] < 0.05 and 0 < drift["map"]["most"] < 0.1
