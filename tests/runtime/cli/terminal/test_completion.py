"""Completion as bash does it: its own shell reads the script, and asks the installed programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kanoclip.runtime.cli.commands import programs
from kanoclip.runtime.cli.main import invoke
from kanoclip.runtime.cli.terminal.completion import SHELLS, paths_of, script

BIN = Path(sys.executable).parent
COMPLETE = """
eval "$(kanoclip completion bash)"
compopt() { echo "as $2"; }   # which a shell has only while it completes
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
$(complete -p "$1" | sed 's/.*-F \\([^ ]*\\) .*/\\1/') "$1"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(*words):
    """What bash offers for the last of some words."""
    done = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", *words],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split("\n")[:-1]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_options_choices_and_files():
    assert {"run", "doctor", "export", "completion"} <= set(completed("kanoclip", ""))
    assert {"--threshold", "--threads"} <= set(completed("kanoclip-run", "--thr"))
    assert completed("kanoclip", "completion", "z") == ["zsh"]
    assert completed("kanoclip-run", "--source", "") == ["as default", ""]
    assert completed("kanoclip-run", "--serve", "") == [""]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_program_is_in_it(shell, capfd):
    assert invoke("kanoclip", None, ["completion", shell]) == 0
    text = capfd.readouterr().out
    assert text == script(shell, programs()) + "\n"
    for name in programs():
        assert f"_{name.replace('-', '_').upper()}_COMPLETE={shell}_complete" in text


@pytest.mark.parametrize(
    ("metavar", "kind"), [("NAME", None), ("[BUNDLE]", "file"), ("DIR", "dir"), ("N|FILE", "file")]
)
def test_paths(metavar, kind):
    assert paths_of(metavar) == kind
