"""What flags take, and what they say to what they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from kanoclip.runtime.cli.main import invoke
from kanoclip.runtime.cli.run_options.kinds import Region


@pytest.mark.parametrize(("flag", "value", "meant"), [("--threshold", "0,6", "0.6"), ("--pixel-threshold", ",5", ".5")])
def test_a_decimal_comma_is_refused_with_what_was_meant(capsys, flag, value, meant):
    for command in ("run", "score"):
        arguments = ["--source", "parts/", "--output", "r.parquet", flag, value]
        assert invoke(f"kanoclip-{command}", command, arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"write {meant}" in line and flag in line


def test_nan_is_no_number(capsys):
    """It is neither below nor above any bound."""
    assert invoke("kanoclip-run", "run", ["--source", "parts/", "--threshold", "nan"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'nan' is no number" in line and "--threshold" in line


def test_a_rectangle_belongs_to_no_folder(tmp_path):
    kind = Region()
    for text in ("10%,20%,50%,60%", "0,0,320,240@640x480"):
        assert kind.of_toml(text, tmp_path) == Path(text) and kind.to_toml(Path(text)) == text
    assert kind.of_toml("belt.json", tmp_path) == tmp_path / "belt.json"
    assert kind.to_toml(tmp_path / "belt.json") == str(tmp_path / "belt.json")
