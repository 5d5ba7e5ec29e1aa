"""A class that the text encoder would cut, or cannot tell from another, is refused before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from kanoclip.runtime.cli.main import invoke

HERE = Path(__file__).parent
LONG = [(HERE / name).read_text().strip() for name in ("a.txt", "b.txt")]


def export(tmp_path, capsys, *classes, prompts="handcrafted"):
    flags = [part for name in classes for part in ("--class", name)]
    output = tmp_path / "x.kanoclip"
    given = ["--backbone", "random-tiny", "--weights", "none", "--prompts", prompts, "--fp32", *flags]
    code = invoke("kanoclip-export", "export", [*given, "--output", str(output)])
    assert not output.exists()
    return code, " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("prompts", ["handcrafted", "template", "learned"])
def test_too_long(tmp_path, capsys, prompts):
    code, err = export(tmp_path, capsys, *LONG, prompts=prompts)
    assert code == 1
    assert "class 'hexagonal flange bolt with zinc plated s...' is too long: a prompt with it has" in err


def test_the_length_is_that_of_the_longest_prompt(tmp_path, capsys):
    """70 words fit into the text encoder, but not with the words round them."""
    code, err = export(tmp_path, capsys, "bolt " * 70)
    assert code == 1 and "is too long: a prompt with it has 8" in err


@pytest.mark.parametrize("twin", ["Bolt", "bolt  ", " bolt", "BOLT"])
def test_two_names_for_one_class(tmp_path, capsys, twin):
    code, err = export(tmp_path, capsys, "bolt", twin)
    assert code == 1 and "are the same to the text encoder: leave one out" in err


@pytest.mark.parametrize(
    "name", ["bo\nlt", "bolt\r", "bo\x1b[31mlt", "bolt\u2028", "bo\x00lt", "\ud800", "bo\u202elt", "bolt\u200b"]
)
def test_characters_that_are_no_text(tmp_path, capsys, name):
    code, err = export(tmp_path, capsys, name)
    assert code == 2 and "has a line end or a control character" in err
