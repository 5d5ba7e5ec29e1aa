"""`kanoclip-data`: which datasets are known, and what a dataset's folder holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table
from rich.text import Text

from kanoclip.runtime.cli.terminal.bar import counted
from kanoclip.runtime.cli.terminal.console import Console

if TYPE_CHECKING:
    from kanoclip.train.data.check import CategoryReport, Report

_MOST_SIZES = 2
_MOST_PROBLEMS = 100

_EPILOG = """
Examples:

\b
  kanoclip-data list
  kanoclip-data check ~/data/mvtec
  kanoclip-data check ~/data/visa --dataset visa --deep

Exit codes: 0 all fine; 1 a failure, or images or masks that cannot be used; 2 wrong usage.
"""


@click.group(epilog=_EPILOG, invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """Show the known datasets, or check a dataset's folder."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_datasets(as_json: bool) -> None:
    """Show the known datasets, their categories and the folders they are read from."""
    from kanoclip.train.data.registry import DATASETS

    if as_json:
        rows = {
            name: {
                "about": layout.about,
                "pixel_labels": layout.pixel_labels,
                "categories": dict(layout.class_names),
                "forms": [form.shape for form in layout.forms],
            }
            for name, layout in DATASETS.items()
        }
        click.echo(json.dumps(rows, indent=2))
        return
    console = Console(highlight=False)
    for name, layout in DATASETS.items():
        masks = "" if layout.pixel_labels else " (no masks)"
        console.print(Text.assemble((name, "bold"), f"  {layout.about}{masks}"))
        for form in layout.forms:
            console.print(Text(f"    {form.shape}", "dim"), soft_wrap=True)
        if layout.class_names:
            others = ", or any other" if layout.any_category else ""
            console.print(Text(f"    categories: {', '.join(layout.class_names)}{others}"), soft_wrap=True)


@command.command(epilog=_EPILOG)
@click.argument("root", type=click.Path(path_type=Path), metavar="ROOT")
@click.option("--dataset", metavar="NAME", help="Its layout: see `kanoclip-data list`. Default: found out.")
@click.option("--category", "categories", multiple=True, metavar="NAME", help="Check these only; repeatable.")
@click.option("--deep", is_flag=True, help="Decode every image and mask: finds damaged files and empty masks. Slow.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(root: Path, dataset: str | None, categories: tuple[str, ...], deep: bool, as_json: bool) -> int:
    """Say what a dataset's folder holds, and what is missing, unpaired or unreadable.

    Without --deep only folders and the images' headers are read.
    """
    from kanoclip.runtime.errors import DataError
    from kanoclip.train.data.check import inspect
    from kanoclip.train.data.registry import DATASETS, dataset_names, open_dataset

    if dataset is not None and dataset not in DATASETS:
        raise click.BadParameter(f"{dataset!r} is none of {', '.join(DATASETS)}.", param_hint="'--dataset'")
    if dataset is None:
        fits = dataset_names(root)
        if not fits:
            raise DataError(f"{root} looks like no dataset that is known: see `kanoclip-data list` for the layouts")
        if len(fits) > 1:
            raise DataError(f"{root} looks like {', '.join(fits)}: choose one with --dataset")
        dataset = fits[0]
    found = open_dataset(dataset, root, categories=categories, split="all")
    total = sum(len(category.samples) for category in found.categories)
    with counted(Console(stderr=True), "checking", total) as advance:
        report = inspect(found, deep=deep, advance=advance)
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=2))
    else:
        _print(report, Console(highlight=False))
    return 0 if report.complete else 1


def _print(report: Report, console: Console) -> None:
    console.print(Text(f"{report.dataset}: {_clean(report.root)}"), soft_wrap=True)
    table = Table()
    table.add_column("category", overflow="fold")
    for heading in ("good", "anomalous", "masks"):
        table.add_column(heading, justify="right")
    for heading in ("defects", "sizes"):
        table.add_column(heading, overflow="fold")
    table.add_column("problems", justify="right")
    for category in report.categories:
        count = sum(problem.category == category.name and problem.loses_data for problem in report.problems)
        table.add_row(
            _named(category),
            str(category.good),
            str(category.anomalous),
            str(category.masks) if report.pixel_labels else "-",
            Text(", ".join(f"{_clean(kind)} {number}" for kind, number in category.defects.items())),
            _sizes(category),
            Text(str(count), "red" if count else ""),
        )
    console.print(table)
    if not report.pixel_labels:
        console.print(Text("no masks: pixel-level metrics are undefined"))
    for problem in report.problems[:_MOST_PROBLEMS]:
        line = f"{_clean(problem.category)}: {_clean(str(problem.path))}: {_clean(problem.reason)}"
        console.print(Text(line, "red" if problem.loses_data else "yellow"), soft_wrap=True)
    if (more := len(report.problems) - _MOST_PROBLEMS) > 0:
        console.print(Text(f"... and {more} more: --json has all of them"))
    if not report.deep:
        console.print(Text("only headers were read: --deep decodes every image and mask"))


def _named(category: CategoryReport) -> Text:
    """The category, and its words for a prompt where they are others."""
    name = _clean(category.name)
    as_named = category.class_name == category.name.replace("_", " ")
    return Text(name if as_named else f"{name} ({_clean(category.class_name)})")


def _sizes(category: CategoryReport) -> Text:
    """The commonest sizes, and how many others there are."""
    sizes = [f"{width} x {height}" for height, width in category.sizes]
    more = [f"{len(sizes) - _MOST_SIZES} more"] if len(sizes) > _MOST_SIZES else []
    return Text(", ".join(sizes[:_MOST_SIZES] + more))


def _clean(text: str) -> str:
    """A file's name may hold anything; what cannot be printed on one line becomes a question mark."""
    return "".join(char if char.isprintable() else "?" for char in text)
