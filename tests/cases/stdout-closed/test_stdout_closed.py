"""Standard output that is closed, full or not read: exit code 0 if all else was written, or 1 with one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

BIN = Path(sys.executable).parent


@pytest.fixture
def shell(tmp_path, toy_bundle):
    cv2.imwrite(str(tmp_path / "a\x1b[31m\u202e.png"), np.full((40, 40, 3), 60, np.uint8))

    def run(line):
        line = line.replace("kanoclip-run", f"kanoclip-run --bundle {toy_bundle}").replace(
            "kanoclip", f"{BIN}/kanoclip", 1
        )
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True)
        assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr
        return done

    return run


def test_closed(shell, tmp_path):
    done = shell("kanoclip-run --source . --quiet --jsonl x.jsonl >&-")
    assert (done.returncode, done.stderr) == (0, "")
    assert len((tmp_path / "x.jsonl").read_text().splitlines()) == 1
    done = shell("kanoclip-run --source . --jsonl y.jsonl >&- 2>&- <&-")
    assert done.returncode == 0
    assert (tmp_path / "y.jsonl").read_text().count("\n") == 1, "no other text got its descriptor"


def test_full(shell, tmp_path):
    done = shell("kanoclip-run --source . --jsonl x.jsonl >/dev/full")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: standard output cannot be written (No space left on device): what was printed is incomplete"
    )
    assert len((tmp_path / "x.jsonl").read_text().splitlines()) == 1
    assert shell("kanoclip-run --source . --jsonl z.jsonl >/dev/full 2>/dev/full").returncode == 1
    assert shell("kanoclip-run --source . --quiet --jsonl - >/dev/full").returncode == 1


@pytest.mark.parametrize(
    "line", ["kanoclip --help", "kanoclip --version", "kanoclip-bundle --help", "kanoclip-doctor --json"]
)
def test_other_commands(shell, line):
    done = shell(f"{line} >/dev/full")
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("error: standard output")
    assert shell(f"{line} >&-").returncode in (0, 1)


def test_control_characters_of_a_name_reach_no_terminal(shell):
    done = shell("kanoclip-run --source . --table")
    assert r"\x1b[31m\u202e.png" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    done = shell("kanoclip-run --source $'none\\e31m.png'")
    assert done.stderr == "error: none\\x1b31m.png: no such file or folder\n"
