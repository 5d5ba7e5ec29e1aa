"""The generated pages of the command line: everything that click knows is in them, and nothing breaks their form."""

from __future__ import annotations

import html
import re
import shutil
import subprocess

import click
import pytest
from command_pages import markdown, pages, write

from kanoclip.runtime.cli.commands import command_lines, programs
from kanoclip.runtime.cli.main import load_command

MACROS = re.compile(r"\.(TH|SH|SS|PP|TP|nf|fi|RS|RE)\b")


@pytest.fixture(scope="module")
def found():
    return {page.name: page for page in pages()}


def test_there_is_a_page_for_every_program(found):
    assert {name for name in found if " " not in name} == set(programs())
    assert len(found) == len(command_lines()) + 1


def test_every_option_is_in_the_table_and_every_row_is_whole(found):
    for name, page in found.items():
        text = markdown(page)
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert rows and all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows), name
        command = load_command(re.split("[- ]", name)[1]) if name != "kanoclip" else None
        below = [command, *getattr(command, "commands", {}).values()] if command else []
        for param in (one for each in below for one in each.params):
            if isinstance(param, click.Option) and not param.hidden:
                assert f"<code>{html.escape(param.opts[0])}" in text, (name, param.opts)


def test_man_pages_have_no_line_that_roff_would_take_for_another_request(tmp_path):
    for path in write("man", tmp_path):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith(f'.TH "{path.stem.upper()}"'.replace("-", "\\-"))
        assert [line for line in lines if line[:1] in ".'" and not MACROS.match(line) and line] == []
        if shutil.which("groff"):
            done = subprocess.run(
                ["groff", "-man", "-ww", "-Tutf8", "-z", path], capture_output=True, text=True, timeout=60
            )
            assert (done.returncode, done.stderr) == (0, ""), path.name
