"""What docs/fleet.md, docs/triton.md and the update's unit say is true of the commands."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from kanoclip.runtime.cli.main import load_command

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "fleet.md").read_text()
TRITON_PAGE = (ROOT / "docs" / "triton.md").read_text()
UNIT = ROOT / "docs" / "deploy" / "kanoclip-update.service"
TIMER = UNIT.with_suffix(".timer")


def accepts(words):
    """The command takes these words; nothing is run."""
    program, *arguments = words
    command = load_command(program.removeprefix("kanoclip-"))
    if isinstance(command, click.Group):
        name, *arguments = arguments
        command = command.commands[name]
    command.make_context(program, list(arguments))


def test_the_pages_commands_are_accepted():
    seen = set()
    for block in re.findall(r"```sh\n(.*?)```", PAGE + TRITON_PAGE, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = [word.rpartition("/")[2] if "/bin/" in word else word for word in shlex.split(line, comments=True)]
            start = next((i for i, word in enumerate(words) if re.fullmatch(r"kanoclip-\w+", word)), None)
            if start is not None and words[0] in ("sudo", words[start]):
                accepts(words[start:])
                seen.add(tuple(words[start : start + 2]))
    assert {("kanoclip-doctor", "line3.kanoclip"), ("kanoclip-run", "--camera"), ("kanoclip-export", "--fp16")} <= seen
    assert {("kanoclip-bundle", name) for name in ("keygen", "push", "pull", "list", "verify", "rollback")} <= seen


def test_the_units_command_is_accepted():
    line = next(line for line in UNIT.read_text().splitlines() if line.startswith("ExecStart="))
    text = line.removeprefix("ExecStart=").replace("${KANOCLIP_FROM}", "oci://registry.plant/kanoclip:line3")
    words = shlex.split(text.replace("$KANOCLIP_PULL_OPTIONS", "--backend openvino --device cpu"))
    accepts([words[0].rpartition("/")[2], *words[1:]])
    allowed = re.search(r"NOPASSWD: (.*)' >", UNIT.read_text())[1]
    assert words[words.index("--then") + 1] == f"sudo -n {allowed}"


@pytest.mark.programs("systemd-analyze")
def test_systemd_accepts_the_units(tmp_path):
    for unit in (UNIT, TIMER):
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/kanoclip/bin/kanoclip-bundle", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, tmp_path.iterdir())],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "Failed to connect" in done.stderr or "Failed to initialize" in done.stderr:
        pytest.skip("systemd-analyze does not work here")
    assert (done.returncode, [line for line in done.stderr.splitlines() if "kanoclip-update" in line]) == (0, [])


def test_links_and_files_exist():
    for page in (PAGE, TRITON_PAGE):
        for name in re.findall(r"(?<!/)\b(?:docs/deploy|tests)/[\w/.-]+\w", page):
            assert (ROOT / name).exists(), name
        for name in re.findall(r"\]\(([\w./-]+\.md)", page):
            assert (ROOT / "docs" / name).exists(), name
