#!/usr/bin/env python3
"""Writes what click knows of every command: the site's reference in Markdown, or man pages.

Usage: command_pages.py markdown FOLDER | command_pages.py man FOLDER
"""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import click

from kanoclip.runtime.cli.commands import DISTRIBUTION, WITHOUT_PROGRAM, command_lines
from kanoclip.runtime.cli.main import group, load_command
from kanoclip.runtime.cli.run_options.fields import FlagOption
from kanoclip.runtime.system.installed import installed_versions

WIDTH = 100


@dataclass(frozen=True)
class Page:
    """What is known of one program.

    Attributes:
        name: As a user types it, such as `kanoclip-run`; a command below it has a blank, `kanoclip-bundle pull`.
        line: The first sentence of its help.
        usage: Its arguments.
        text: Paragraphs of its help.
        sections: (heading, [(option, what it is)]).
        epilog: Paragraphs of examples and exit codes; those that begin with a control character are verbatim.
        below: Pages of its own commands.
    """

    name: str
    line: str
    usage: str
    text: Sequence[str]
    sections: Sequence[tuple[str, Sequence[tuple[str, str]]]]
    epilog: Sequence[str]
    below: Sequence[Page] = field(default=())


def pages() -> Iterator[Page]:
    """Of each program, in the order of `kanoclip --help`."""
    lines = dict(command_lines())
    own = _page("kanoclip", group, "Zero-shot visual anomaly detection that runs where the camera is.")
    yield own
    for name, line in lines.items():
        program = f"kanoclip {name}" if name in WITHOUT_PROGRAM else f"kanoclip-{name}"
        yield _page(program, load_command(name), line)


def _page(name: str, command: click.Command, line: str) -> Page:
    ctx = click.Context(command, info_name=name, max_content_width=WIDTH)
    ctx.terminal_width = WIDTH
    below = []
    rows: dict[str, list[tuple[str, str]]] = {}
    if isinstance(command, click.Group):
        if command is group:
            rows["Commands"] = command_lines()
        else:
            below = [_page(f"{name} {n}", one, one.get_short_help_str(WIDTH)) for n, one in command.commands.items()]
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is not None and record[1]:  # an argument that --bundle stands for too has no text
            section = param.section if isinstance(param, FlagOption) else "Options"
            rows.setdefault(section, []).append(record)
    return Page(
        name,
        line,
        " ".join(command.collect_usage_pieces(ctx)),
        _paragraphs(command.help or ""),
        list(rows.items()),
        _paragraphs(command.epilog or ""),
        below,
    )


def _paragraphs(text: str) -> list[str]:
    """Paragraphs; click's mark for "leave the lines as they are" stays at the beginning of those that have it."""
    return [part for part in re.split(r"\n\s*\n", text.strip("\n")) if part.strip()]


def _verbatim(paragraph: str) -> list[str] | None:
    """The lines of a paragraph that stay as they are, without what all are indented by; None for a usual one."""
    first, _, rest = paragraph.partition("\n")
    if first.strip() != "\b":
        return None
    lines = rest.splitlines()
    indent = min((len(one) - len(one.lstrip()) for one in lines if one.strip()), default=0)
    return [one[indent:].rstrip() for one in lines]


def markdown(page: Page, level: int = 1) -> str:
    """A page of the site."""
    parts = [f"{'#' * level} {page.name}", page.line, f"```text\n{page.name} {page.usage}\n```"]
    parts += [_flowing(one) for one in page.text if _flowing(one) != page.line]
    for heading, rows in page.sections:
        table = ["| what | what it does |", "|---|---|", *(f"| {_code(name)} | {_cell(what)} |" for name, what in rows)]
        parts += [f"{'#' * (level + 1)} {heading}" if level == 1 else f"**{heading}**", "\n".join(table)]
    for one in page.epilog:
        lines = _verbatim(one)
        parts.append(_flowing(one) if lines is None else "```sh\n" + "\n".join(lines) + "\n```")
    parts += [markdown(one, level + 1).strip() for one in page.below]
    return "\n\n".join(parts) + "\n"


def _flowing(paragraph: str) -> str:
    return _cell(" ".join(paragraph.split()))


def _code(text: str) -> str:
    """In HTML: in a table, Python-Markdown leaves the backslash of a bar in back quotes, and ends the cell without."""
    return f"<code>{html.escape(text).replace('|', '&#124;')}</code>"


def _cell(text: str) -> str:
    """Plain text, none of which Markdown may take for its own marks."""
    return re.sub(r"([|<>*_\[\]`\\])", r"\\\1", text)


def man(page: Page, version: str, date: str, others: Sequence[str]) -> str:
    """The page as roff, for the program man."""
    title = page.name.replace(" ", "-")
    out = [f'.TH "{_roff(title.upper())}" "1" "{date}" "KAnoCLIP-edge {version}" "KAnoCLIP-edge"']
    out += [".SH NAME", f"{_roff(title)} \\- {_roff(page.line)}", *_man_body(page, ".SH")]
    for one in page.below:
        out += [f'.SH "COMMAND {_roff(one.name.rpartition(" ")[2].upper())}"', *_man_body(one, ".SS")]
    out += [".SH SEE ALSO", ", ".join(f"\\fB{_roff(name)}\\fR(1)" for name in others if name != title)]
    return "\n".join(out) + "\n"


def _man_body(page: Page, macro: str) -> list[str]:
    program, _, command = page.name.partition(" ")
    out = [f"{macro} SYNOPSIS", f"\\fB{_roff(f'{program} {command}'.strip())}\\fR {_roff(page.usage)}"]
    out.append(f"{macro} DESCRIPTION")
    for one in page.text:
        out += [".PP", _line(" ".join(one.split()))]
    for heading, rows in page.sections:
        out.append(f'{macro} "{_roff(heading.upper())}"')
        for name, what in rows:
            out += [".TP", f"\\fB{_roff(name)}\\fR", _line(what)]
    if page.epilog:
        out.append(f"{macro} EXAMPLES")
    for one in page.epilog:
        lines = _verbatim(one)
        if lines is None:
            out += [".PP", _line(" ".join(one.split()))]
        else:
            out += [".PP", ".nf", ".RS 2", *(_line(text) for text in lines), ".RE", ".fi"]
    return out


def _roff(text: str) -> str:
    """Text as it is; hyphens of options must stay hyphens where they are copied."""
    return text.replace("\\", "\\e").replace("-", "\\-")


def _line(text: str) -> str:
    """A line of text, which must not begin as one of roff's requests does."""
    text = _roff(text)
    return f"\\&{text}" if text[:1] in {".", "'"} else text


def write(kind: str, folder: Path) -> list[Path]:
    """Writes all pages of a kind; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    found = list(pages())
    names = [page.name.replace(" ", "-") for page in found]
    version = installed_versions([DISTRIBUTION]).get(DISTRIBUTION, "")
    date = datetime.now(timezone.utc).date().isoformat()
    written = []
    for page, name in zip(found, names, strict=True):
        path = folder / (f"{name}.1" if kind == "man" else f"{name}.md")
        path.write_text(man(page, version, date, names) if kind == "man" else markdown(page), encoding="utf-8")
        written.append(path)
    return written


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("man", "markdown"):
        sys.exit(__doc__)
    print(f"{len(write(sys.argv[1], Path(sys.argv[2])))} pages in {sys.argv[2]}")
