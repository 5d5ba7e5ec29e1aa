"""What a decoder fills up is not scored as if a camera had seen it, but when that is wanted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kanoclip.runtime.cli.main import invoke

pytest.importorskip("simplejpeg")
HERE = Path(__file__).parent
DAMAGED = {"bitrot.jpg", "half_with_eoi.jpg"}


def run(toy_bundle, tmp_path, *more):
    lines = tmp_path / "lines.jsonl"
    given = ["--bundle", str(toy_bundle), "--backend", "onnxruntime", "--source", str(HERE), "--jsonl", str(lines)]
    code = invoke("kanoclip-run", "run", [*given, "--no-window", *more])
    return code, {Path(one["source"]).name: one for one in map(json.loads, lines.read_text().splitlines())}


def test_damaged_ones_are_skipped_with_the_reason(toy_bundle, tmp_path, capsys):
    code, found = run(toy_bundle, tmp_path)
    assert code == 1
    assert {name for name, one in found.items() if one.get("score") is not None} == {"whole.jpg"}
    assert "premature end of data segment" in "".join(capsys.readouterr())


def test_they_are_scored_with_a_warning_where_that_is_wanted(toy_bundle, tmp_path, capsys):
    code, found = run(toy_bundle, tmp_path, "--damaged", "keep")
    assert code == 0
    assert found.keys() == DAMAGED | {"whole.jpg"}
    err = capsys.readouterr().err
    for name in DAMAGED:
        assert f"warning: {HERE / name}: damaged (Corrupt JPEG data: premature end of data segment), scored" in err
