from __future__ import annotations

import ast
import io
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.errors import printable

ROOT = Path(__file__).parents[4]
HOSTILE = "a\x1b[31m\x1b]0;title\x07\r\x00\x7f\x9b\u202e\u2066\udcff\ufeffgnp.exe"
SHOWN = r"a\x1b[31m\x1b]0;title\x07\x0d\x00\x7f\x9b\u202e\u2066\udcff\ufeffgnp.exe"


def test_a_hostile_name_in_visible_characters():
    assert printable(HOSTILE) == SHOWN
    assert printable(SHOWN) == SHOWN
    assert printable("größe 部品 é.png") == "größe 部品 é.png"


@pytest.mark.parametrize(
    "code", [*range(0x20), *range(0x7F, 0xA0), 0x61C, *range(0x200B, 0x2010), *range(0x202A, 0x202F)]
)
def test_every_character_that_is_none(code):
    assert printable(f"a{chr(code)}b").isprintable()


@pytest.mark.parametrize("make", [str, Text, lambda text: Text(text, "bold red"), lambda text: _table(text)])
def test_the_console_prints_it_so(make):
    out = io.StringIO()
    Console(file=out, width=300, highlight=False, markup=False).print(make(HOSTILE))
    shown = out.getvalue()
    assert all(one.isprintable() or one in "\n" for one in shown), shown
    assert r"\x1b[31m" in shown


def _table(text):
    table = Table("file")
    table.add_row(text)
    return table


def test_colours_are_the_console_s_own():
    out = io.StringIO()
    Console(file=out, force_terminal=True, color_system="standard", width=200).print(Text(HOSTILE, "red"))
    assert out.getvalue().startswith("\x1b[31ma\\x1b[31m")


class Full(io.StringIO):
    def flush(self):
        raise OSError(28, "No space left on device")


def test_a_full_disk_ends_no_print():
    console = Console(file=Full(), width=80)
    for _ in range(3):
        console.print("text")


def test_no_other_console_is_used():
    """Another one would let control characters through. The log cleans its lines itself."""
    found = []
    for path in sorted(
        path for part in ("runtime", "export", "train", "benchmarks") for path in (ROOT / part).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if "rich.console" in names or (isinstance(node, ast.ImportFrom) and node.module == "rich.console"):
                found.append(str(path.relative_to(ROOT)))
    assert sorted(set(found)) == ["runtime/cli/terminal/console.py", "runtime/service/logs.py"]
