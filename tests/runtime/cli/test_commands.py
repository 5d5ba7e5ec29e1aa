"""Commands: found by name, the other parts' by their registration, and none imported for the help."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import click
import pytest

from kanoclip.runtime.cli import commands
from kanoclip.runtime.cli.commands import (
    DISTRIBUTION,
    GROUP,
    RUNTIME,
    WITHOUT_PROGRAM,
    command_lines,
    open_command,
    programs,
    registered,
)
from kanoclip.runtime.cli.main import invoke

ROOT = Path(__file__).parents[3]


def test_what_pyproject_registers_is_there():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11's own parser")
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][GROUP]
    assert {name: entry.value for name, entry in registered().items()} == declared, "pip install -e . once more"
    for value in declared.values():
        module, _, function = value.partition(":")
        assert importlib.util.find_spec(module) and hasattr(importlib.import_module(module), function)


def test_every_command_has_a_line_and_a_program():
    lines = dict(command_lines())
    assert all(line.endswith(".") and "\n" not in line for line in lines.values()), lines
    scripts = metadata.distribution(DISTRIBUTION).entry_points.select(group="console_scripts")
    assert set(scripts.names) == set(programs())
    assert {name.removeprefix("kanoclip-") for name in programs()[1:]} == set(lines) - WITHOUT_PROGRAM


def test_no_name_is_taken_twice():
    assert not RUNTIME.keys() & registered().keys()


@pytest.mark.parametrize("name", [name for name, _ in command_lines()])
def test_opens(name):
    assert isinstance(open_command(name), click.Command)


def test_an_unknown_command(capsys):
    assert invoke("kanoclip", None, ["fly"]) == 2
    error = capsys.readouterr().err
    assert (
        all(part in error for part in ("'fly'", "run, doctor", "train", "kanoclip --help")) and error.count("\n") == 1
    )


@pytest.mark.parametrize("installed", [False, True], ids=["a source tree", "installed before there were registrations"])
def test_without_registrations(monkeypatch, capsys, installed):
    class Old:
        entry_points = metadata.EntryPoints()

    def distribution(name):
        if not installed:
            raise metadata.PackageNotFoundError(name)
        return Old()

    monkeypatch.setattr(commands.metadata, "distribution", distribution)
    assert [name for name, _ in command_lines()] == list(RUNTIME)
    assert isinstance(open_command("run"), click.Command)
    assert invoke("kanoclip-train", "train", ["--help"]) == 2
    error = capsys.readouterr().err
    assert all(part in error for part in ("'train'", "pip install -e ."))


def test_a_source_tree_on_the_path_runs_the_runtime(tmp_path):
    """As on a box where the folder was copied: without the installed project's metadata in sight."""
    (tmp_path / "kanoclip").mkdir()
    (tmp_path / "kanoclip" / "runtime").symlink_to(ROOT / "runtime")
    hidden = (
        "import sys; from importlib import metadata\n"
        "found = metadata.distribution\n"
        "def distribution(name):\n"
        "    if name == 'kanoclip-edge': raise metadata.PackageNotFoundError(name)\n"
        "    return found(name)\n"
        "metadata.distribution = distribution\n"
        "from kanoclip.runtime.cli.main import invoke; sys.exit(invoke('kanoclip', None, sys.argv[1:]))"
    )
    for arguments, code in ((["--help"], 0), (["run", "--help"], 0), (["eval"], 2)):
        done = subprocess.run(
            [sys.executable, "-c", hidden, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
        )
        assert done.returncode == code, done.stderr
        assert ("pip install -e ." in done.stderr) == (code == 2)
