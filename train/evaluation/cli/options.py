"""The options that all forms of `kanoclip-eval` share; references and the ablation have their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.cli.options import Command, with_options
from kanoclip.runtime.cli.run_options.kinds import Decimal
from kanoclip.runtime.detect.tiles import parse_grid
from kanoclip.runtime.engines import BACKENDS
from kanoclip.runtime.errors import KanoclipError
from kanoclip.runtime.sources.files.reading import Reading

if TYPE_CHECKING:
    from kanoclip.train.model.kanoclip import Prompts

FILE = click.Path(path_type=Path, dir_okay=False)
AUTO = "auto"


@dataclass(frozen=True)
class EvalOptions:
    """The command line; what each means is in its option's help."""

    bundle: Path | None
    checkpoint: Path | None
    prompts: Prompts | None
    backbone: str | None
    weights: str
    image_size: int | None
    no_vv: bool
    windows: bool
    sigma: float | None
    tiles: TileGrid | str | None
    suite_file: Path | None
    dataset: str
    root: Path
    categories: tuple[str, ...]
    class_name: str | None
    batch_size: int
    backend: str
    device: str
    threads: int | None
    output: Path | None
    csv_file: Path | None
    markdown_file: Path | None
    sheet: Path | None
    sheet_cases: int
    compare: str | None
    skip_bad: bool
    seed: int
    reading: Reading
    as_json: bool
    quiet: bool


def _tiles(ctx: click.Context, param: click.Parameter, value: str | None) -> TileGrid | str | None:
    if value is None or value == AUTO:
        return value
    try:
        return parse_grid(value)
    except KanoclipError as error:
        raise click.BadParameter(str(error), ctx=ctx, param=param) from None


_MODEL = (
    click.option("--bundle", metavar="PATH", help="Measure a bundle. Default, and called builtin: the shipped one."),
    click.option(
        "--checkpoint", type=click.Path(path_type=Path), metavar="FILE", help="Measure a checkpoint in torch."
    ),
    click.option(
        "--prompts",
        type=click.Choice(["learned", "template", "handcrafted"]),
        help="Measure a backbone without a checkpoint: handcrafted is the training-free baseline.",
    ),
    click.option("--backbone", metavar="NAME", help="For --prompts and --ablation: a name such as vit-l-14-336."),
    click.option(
        "--weights", default="auto", show_default=True, metavar="auto|none|FILE", help="The backbone's weights."
    ),
    click.option("--image-size", type=click.IntRange(min=1), metavar="PIXELS", help="Default: the backbone's own."),
    click.option("--no-vv", is_flag=True, help="For --prompts: plain CLIP, without V-V path and modules."),
    click.option(
        "--windows", is_flag=True, help="For --prompts: look through windows of patches too, as WinCLIP does."
    ),
    click.option(
        "--sigma",
        type=Decimal(0, 100, min_open=True),
        metavar="PIXELS",
        help="Of the maps' Gaussian, for --checkpoint and --prompts. Default: the image's height by 336, times 4.",
    ),
    click.option(
        "--tiles",
        callback=_tiles,
        metavar="auto|ROWSxCOLUMNS",
        help="For a bundle: cut images into tiles; auto: by the aspect of each category, or of its references. "
        "Default: as the bundle has it.",
    ),
)
_DATA = (
    click.option(
        "--suite",
        "suite_file",
        type=FILE,
        metavar="FILE.toml",
        help="Measure what the file names on the datasets whose folders it gives, and write tables 1 to 3.",
    ),
    click.option("--dataset", metavar="NAME", help="Layout of the dataset: see `kanoclip-data list`."),
    click.option("--root", type=click.Path(path_type=Path), metavar="DIR", help="The dataset's folder."),
    click.option("--category", "categories", multiple=True, metavar="NAME", help="Only these; repeatable."),
    click.option(
        "--class-name", metavar="WORDS", help="Words for [class] in every prompt. Default: each category's own."
    ),
    click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True),
    click.option("--backend", type=click.Choice(BACKENDS), default="auto", show_default=True, help="Of a bundle."),
    click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda"),
    click.option(
        "--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads. Default: the engine's choice."
    ),
)
_RESULTS = (
    click.option("--output", type=FILE, metavar="FILE.json", help="Write all of it as JSON."),
    click.option("--csv", "csv_file", type=FILE, metavar="FILE", help="Write the table as CSV."),
    click.option("--markdown", "markdown_file", type=FILE, metavar="FILE", help="Write the table as Markdown."),
    click.option("--sheet", type=FILE, metavar="FILE", help="Image of the best and worst cases (.png, .jpg)."),
    click.option("--sheet-cases", type=click.IntRange(min=1), default=4, show_default=True, help="Of each kind."),
    click.option(
        "--compare", type=click.Choice(["paper"]), help="Show the paper's figures for the dataset beside ours."
    ),
    click.option("--skip-bad", is_flag=True, help="Leave out images that cannot be read; exit code 1 says so."),
)


def eval_options(function: Command) -> Command:
    """Adds the shared options to a command, in the order of the help."""
    return with_options(function, (*_MODEL, *_DATA, *_RESULTS))
