"""Where a result goes: to the terminal, and into files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from kanoclip.benchmarks.bench.reports import wording as words
from kanoclip.benchmarks.bench.reports.html import page
from kanoclip.benchmarks.bench.reports.markdown import report
from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.errors import KanoclipError
from kanoclip.runtime.system.paths import replace_file


def show(result: dict[str, Any], compared: Sequence[str], human: Console) -> None:
    """Prints the tables, the notes, and how it compares with a baseline.

    Args:
        result: What was measured.
        compared: Lines about a baseline.
        human: Where to.
    """
    human.print(Text(words.title(result)))
    for found in words.tables(result):
        table = Table(title=found.title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
        for number, name in enumerate(found.head):
            table.add_column(name, justify="left" if number == 0 else "right", overflow="fold")
        for row in found.rows:
            table.add_row(*(Text(cell) for cell in row))
        human.print(table)
    for line in words.notes(result):
        human.print(Text(line, "dim"))
    for line in words.warnings(result):
        human.print(Text(f"warning: {line}", "yellow"))
    for line in compared:
        human.print(Text(line, "red" if words.SLOWER in line else ""))
    for line in words.closing(result):
        human.print(Text(line, "bold"))


def write(
    result: dict[str, Any],
    compared: Sequence[str],
    record: str,
    output: Path | None,
    markdown: Path | None,
    html: Path | None,
) -> None:
    """Writes the files that are wanted.

    Args:
        result: What was measured.
        compared: Lines about a baseline.
        record: The result as JSON.
        output: For the record; None for no file, as with the others.
        markdown: For the tables as Markdown.
        html: For the page.

    Raises:
        KanoclipError: One cannot be written.
    """
    for path, text in (
        (output, lambda: record),
        (markdown, lambda: report(result, compared)),
        (html, lambda: page(result, compared)),
    ):
        if path is not None:
            try:
                replace_file(path, text().encode())
            except OSError as error:
                raise KanoclipError(f"{path} cannot be written ({error.strerror})") from error
