"""The tables as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kanoclip.benchmarks.bench.reports import wording as words


def report(result: Mapping[str, Any], compared: Sequence[str]) -> str:
    """All tables and closing lines.

    Args:
        result: What was measured.
        compared: Lines about a baseline.
    """
    parts = [f"# {_plain(words.title(result))}", f"`kanoclip-bench`, {result['environment']['date']}"]
    parts += [f"**Warning**: {_plain(line)}." for line in words.warnings(result)]
    for table in words.tables(result):
        rows = [table.head, ["---", *["---:"] * (len(table.head) - 1)], *table.rows]
        lines = ["| " + " | ".join(_plain(cell) for cell in row) + " |" for row in rows]
        parts.append("\n".join([f"## {table.title}", "", *lines]))
    listed = [*words.notes(result), *compared, *(f"**{_plain(line)}**" for line in words.closing(result))]
    parts.append("\n".join(f"- {line if line.startswith('**') else _plain(line)}" for line in listed))
    return "\n\n".join(part for part in parts if part) + "\n"


def _plain(text: str) -> str:
    """Keeps a text from being read as markup."""
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")
