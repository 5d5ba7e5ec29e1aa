"""What the documentation tells its readers to type: every command line is one, and the tutorials run.

In the suite: all command lines are taken by their commands, and Python of the fast pages runs. By `make nightly`: the
tutorials from beginning to end, and the notebooks.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import click
import page_blocks
import pytest
from page_blocks import Block, blocks, run_page, runs_here

from kanoclip.runtime.cli.commands import WITHOUT_PROGRAM, programs
from kanoclip.runtime.cli.main import load_command

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
IMAGES = ROOT / "examples" / "hazelnut_toy"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
TUTORIALS = [*sorted((DOCS / "tutorials").glob("*.md")), DOCS / "quickstart.md", DOCS / "api" / "index.md"]
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


def command_lines():
    """(page and line, program, arguments) of each command line of ours in a block of sh."""
    for page in PAGES:
        for block in blocks(page.read_text(encoding="utf-8")):
            if block.language == "sh":
                for command in block.commands():
                    yield f"{page.relative_to(ROOT)}:{block.line}", *shlex.split(command)


def accepted(program, *arguments):
    """Raises what click says of a command line; the files that it names need not be there."""
    if program == "kanoclip":
        if not arguments or arguments[0].startswith("-"):
            assert set(arguments) <= {"--help", "--version"}
            return
        program, *arguments = f"kanoclip-{arguments[0]}", *arguments[1:]
    name = program.removeprefix("kanoclip-")
    assert program in programs() or name in WITHOUT_PROGRAM
    load_command(name).make_context(program, list(arguments))


def test_every_command_line_is_accepted(monkeypatch):
    convert = click.Path.convert
    monkeypatch.setattr(click.Path, "convert", lambda self, *args: _anywhere(convert, self, *args))
    wrong, count = [], 0
    for where, program, *arguments in command_lines():
        try:
            accepted(program, *arguments)
        except click.exceptions.Exit:
            pass
        except (click.ClickException, AssertionError) as error:
            wrong.append(f"{where}: {shlex.join([program, *arguments])}: {error}")
        count += 1
    assert wrong == []
    assert count > 80


def _anywhere(convert, self, value, param, ctx):
    """As click reads a path, of a file that is the reader's own."""
    self.exists, before = False, self.exists
    try:
        return convert(self, value, param, ctx)
    finally:
        self.exists = before


def test_a_wrong_command_line_is_found():
    for line in ("kanoclip-run --no-such-flag", "kanoclip fly", "kanoclip-walk"):
        with pytest.raises((click.ClickException, AssertionError)):
            accepted(*shlex.split(line))


def test_the_navigation_has_every_page():
    """MkDocs says so too, where it is installed; this needs neither it nor minutes."""
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"^ +- (?:[\w ]+: )?([\w/-]+\.md)$", config, re.M)
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert set(listed) - there <= {"changelog.md", "contributing.md", "security.md"}
    assert there - set(listed) == set()
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize(
    ("line", "commands", "here"),
    [
        ("kanoclip-run --source a \\\n  --output b  # why", ["kanoclip-run --source a --output b"], True),
        ("kanoclip-run --camera 0 --jsonl - | jq .score", ["kanoclip-run --camera 0 --jsonl -"], False),
        ("kanoclip-run --source test://", ["kanoclip-run --source test://"], True),
        ("kanoclip-run --source rtsp://box/1", ["kanoclip-run --source rtsp://box/1"], False),
        ("sudo kanoclip-run\npip install x", [], None),
        ('eval "$(kanoclip completion bash)"', [], None),
    ],
)
def test_what_counts_as_a_command(line, commands, here):
    (block,) = blocks(f"text\n\n```sh\n{line}\n```\n")
    assert block.commands() == commands and block.line == 4 and block.left_out is None
    assert [runs_here(one) for one in commands] == [here] * len(commands)


def test_a_block_may_be_left_out():
    (block,) = blocks("<!-- not run: needs a GPU -->\n```sh\nkanoclip-run\n```\n")
    assert block.left_out == "needs a GPU"


def test_a_block_that_fails_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# x\n\n```python\nfirst = 1\n```\n\n```python\nassert first == 2\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md:8 ended with 1:(.|\n)*line 8"):
        run_page(page, tmp_path)


def test_python_runs(tmp_path):
    """Pages that load the model wait for `make nightly`: its first start tries the engines."""
    assert run_page(DOCS / "api" / "metrics.md", tmp_path)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda path: path.stem)
def test_tutorials_run(page, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    page_blocks.make_parts(tmp_path, IMAGES)
    assert run_page(page, tmp_path)


def code_of(notebook):
    """The cells of code."""
    return [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_were_run_from_top_to_bottom_and_are_light(notebook):
    cells = code_of(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not [out for cell in cells for out in cell["outputs"] if out["output_type"] == "error"]
    assert notebook.stat().st_size < 150_000


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_commands_are_accepted(notebook, monkeypatch):
    convert = click.Path.convert
    monkeypatch.setattr(click.Path, "convert", lambda self, *args: _anywhere(convert, self, *args))
    cells = ["".join(cell["source"]) for cell in code_of(notebook)]
    shells = [Block("sh", cell, 1, None) for cell in cells if cell.startswith("%%bash\n")]
    commands = [shlex.split(one) for shell in shells for one in shell.commands()]
    assert commands
    for command in commands:
        accepted(*command)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(notebook, tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    content = nbformat.read(notebook, 4)
    nbclient.NotebookClient(
        content, timeout=1500, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert (tmp_path / "part.kanoclip" / "manifest.json").is_file()
