"""What ran where: a table of the reports that `kanoclip-doctor --report` has written, here or on others' machines.

python -m kanoclip.benchmarks.studies.gpu_reports reports/ box7.json --output docs/gpu-reports.md
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from kanoclip.runtime.engines.doctor import REPORT
from kanoclip.runtime.errors import KanoclipError, printable

HEAD = ("GPU", "driver", "engine", "bundle", "result", "map, score drift", "ms", "fused")
_LONGEST = 160


def read_reports(places: Sequence[Path]) -> list[dict[str, Any]]:
    """Reports of files and of all folders below those named; other JSON in a folder is passed over.

    Raises:
        KanoclipError: A file that was named is no report.
    """
    found = []
    for place in places:
        for path in sorted(place.rglob("*.json")) if place.is_dir() else [place]:
            try:
                value = json.loads(path.read_text(encoding="utf-8"))
                wanted = isinstance(value, dict) and (value.get("format"), value.get("version")) == (REPORT, 1)
                if wanted:
                    row(value)  # whatever is missing shows here
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
                wanted = False
            if wanted:
                found.append(value)
            elif path == place:
                raise KanoclipError(f"{path} is no report: kanoclip-doctor --report FILE writes one")
    return found


def row(report: dict[str, Any]) -> list[str]:
    """One report's cells, in the order of HEAD. They come from strangers: nothing of them is Markdown."""
    machine, bundle, asked, found = (report[key] for key in ("machine", "bundle", "asked", "comparison"))
    name, driver = "no GPU", ""
    if machine["gpus"]:
        name, _, driver, *_ = [*str(machine["gpus"][0]).split(", "), "", ""]
    elif machine["jetson"]:
        name = f"Jetson, {machine['jetson']}"
    if found is None:
        result = f"did not run: {report['error']}"
        figures = ["", "", ""]
    else:
        result = f"{found['backend']} {'agrees' if report['agrees'] else 'DRIFTS'}"
        drifts = [found["map_drift"], found["score_drift"]]
        figures = [", ".join("NaN" if drift is None else f"{drift:.0e}" for drift in drifts)]
        figures += [f"{found['milliseconds']:.2f}", "" if (fused := found["fused_attention"]) is None else str(fused)]
    batch = f"{'1 to ' if bundle['dynamic_batch'] else ''}{bundle['batch']}"
    about = f"{bundle['backbone']}, {bundle['precision']}, batch {batch}"
    engine = f"{asked['backend']} {report['engine_version'] or ''}".strip()
    return [_plain(cell) for cell in (name, driver, engine, about, result, *figures)]


def table(reports: Sequence[dict[str, Any]]) -> str:
    """Markdown; one line a report, equal ones once."""
    lines = dict.fromkeys(f"| {' | '.join(row(report))} |" for report in reports)
    return "\n".join([f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}", *sorted(lines)]) + "\n"


def with_table(text: str, new: str) -> str:
    """A page with its table of HEAD replaced; put at its end where it has none."""

    def lines() -> Iterator[str]:
        inside = placed = False
        for line in text.splitlines(keepends=True):
            if line.startswith(f"| {HEAD[0]} |"):
                inside = placed = True
                yield new
            inside = inside and line.startswith("|")
            if not inside:
                yield line
        if not placed:
            yield f"\n{new}" if text else new

    return "".join(lines())


def _plain(text: str) -> str:
    short = printable(str(text))[:_LONGEST]
    for sign in "\\|<>[]`*_":
        short = short.replace(sign, f"\\{sign}")
    return short


@click.command()
@click.argument("places", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="A page whose table is replaced; else it is printed.")
def main(places: tuple[Path, ...], output: Path | None) -> None:
    """Read and show."""
    try:
        made = table(read_reports(places))
    except KanoclipError as error:
        raise click.ClickException(str(error)) from None
    if output is None:
        click.echo(made, nl=False)
        return
    text = output.read_text(encoding="utf-8") if output.is_file() else ""
    output.write_text(with_table(text, made), encoding="utf-8")


if __name__ == "__main__":
    main()
