"""`kanoclip-report`: show a table of scores as one page."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from kanoclip.runtime.cli.options import debug_option, json_option, quiet_option
from kanoclip.runtime.cli.terminal.building import step_line
from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.cli.terminal.quiet import native_chatter_silenced
from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.ops.report.comparison import Comparison, compare_results
from kanoclip.runtime.ops.report.page import Options, make_page
from kanoclip.runtime.ops.report.results import Results
from kanoclip.runtime.system.files.guard import Read, Written, refuse_overwriting
from kanoclip.runtime.system.paths import replace_file

_PAGES = frozenset({".html", ".htm"})
_EPILOG = """
Examples:

\b
  kanoclip-report results.parquet
  kanoclip-report november.parquet --reference october.parquet --output november.html
  kanoclip-report today.parquet --reference good.parquet --fail-on-drift --json

Exit codes: 0 the page is written; 1 a failure, or a marked change with --fail-on-drift; 2 wrong usage.
docs/scale.md says what the figures mean.
"""


@click.command(epilog=_EPILOG)
@click.argument("results", type=click.Path(path_type=Path), metavar="RESULTS.parquet")
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    metavar="OLD.parquet",
    help="A table to compare with: have lighting, focus, place of the camera or scores changed?",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE.html",
    help="Where to. Default: beside the table, .html.",
)
@click.option(
    "--worst", type=click.IntRange(0, 500), default=24, show_default=True, help="Images with the highest scores."
)
@click.option(
    "--closest", type=click.IntRange(0, 500), default=8, show_default=True, help="Images closest to the threshold."
)
@click.option("--maps", type=click.Path(path_type=Path), metavar="FOLDER", help="What kanoclip-score --maps wrote.")
@click.option("--no-pictures", "no_images", is_flag=True, help="Names and figures only.")
@click.option("--fail-on-drift", is_flag=True, help="Exit code 1 where something has changed markedly.")
@json_option
@quiet_option
@debug_option
def command(
    results: Path,
    reference: Path | None,
    output: Path | None,
    worst: int,
    closest: int,
    maps: Path | None,
    no_images: bool,
    fail_on_drift: bool,
    as_json: bool,
    quiet: bool,
    debug: bool,
) -> int:
    """Show a table of kanoclip-score as one HTML page that needs nothing beside it.

    Images are read from where they were scored, relative to this folder, and go into the page; it can be mailed.
    """
    if fail_on_drift and reference is None:
        raise click.UsageError("--fail-on-drift needs a --reference to have drifted from")
    place = results.with_suffix(".html") if output is None else output
    if place.suffix.lower() not in _PAGES:  # the table names images, and none of them is to become a page
        raise click.UsageError(f"--output {place}: the page is an .html file")
    refuse_overwriting(
        [Written("--output", place)],
        [Read("the table", results), *([Read("the reference", reference)] if reference is not None else [])],
    )
    human = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
    now = Results(results)
    before = None if reference is None else Results(reference)
    comparison = None if before is None else compare_results(before, now)
    with native_chatter_silenced(active=not debug), step_line(human) as bar:
        task = bar.add_task("reading images", total=None)
        page = make_page(
            now,
            before,
            Options(worst, closest, not no_images, maps),
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    try:
        replace_file(place, page.encode())
    except OSError as error:
        raise SinkError(f"{place} cannot be written ({error.strerror})") from error
    human.print(Text(f"{place}: {now.rows:,} images, {int(now.anomalous.sum()):,} anomalous"))
    for line in () if comparison is None else comparison.sentences():
        human.print(Text(f"changed: {line}", "yellow"))
    if as_json:
        click.echo(json.dumps(_as_json(place, now, comparison), allow_nan=False))
    marked = comparison is not None and comparison.level == "marked"
    return 1 if fail_on_drift and marked else os.EX_OK


def _as_json(place: Path, now: Results, comparison: Comparison | None) -> dict[str, Any]:
    values: dict[str, Any] = {
        "output": str(place),
        "pictures": now.rows,
        "anomalous": int(now.anomalous.sum()),
        "unscored": now.rows - int(now.scored.sum()),
        "drift": None,
    }
    if comparison is not None:
        values["drift"] = {
            "level": comparison.level,
            "figures": {one.name: {**asdict(one), "level": one.level} for one in comparison.drifts},
            "moves": [asdict(move) for move in comparison.moves],
            "remarks": list(comparison.remarks),
        }
    return values
