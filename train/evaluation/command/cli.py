"""The flags of `kanoclip-eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.cli.options import BundleCommand, json_option, quiet_option, reading_options
from kanoclip.runtime.cli.run_options.kinds import Decimal
from kanoclip.runtime.detect.tiles import parse_grid
from kanoclip.runtime.engines import BACKENDS
from kanoclip.runtime.errors import KanoclipError
from kanoclip.train.evaluation.ablation.options import taking_training_options, training_arguments
from kanoclip.train.evaluation.command.checks import check
from kanoclip.train.evaluation.command.modes import ablations, evaluated, few_shots, suites
from kanoclip.train.evaluation.command.options import Options

_EPILOG = """
Examples:

\b
  kanoclip-eval --dataset mvtec --root ~/data/mvtec                      # the bundle that is shipped
  kanoclip-eval line3.kanoclip --dataset mvtec --root ~/data/mvtec --output out.json
  kanoclip-eval --checkpoint vit-l.safetensors --dataset visa --root ~/data/visa --compare paper --sheet cases.jpg
  kanoclip-eval --prompts handcrafted --backbone vit-l-14-336 --dataset mvtec --root ~/data/mvtec
  kanoclip-eval --shots 1,4 --draws 5 --tiles auto --dataset mvtec --root ~/data/mvtec --output few.json
  kanoclip-eval --unlabelled 32 --share 0.1 --dataset mvtec --root ~/data/mvtec
  kanoclip-eval --suite paper.toml --output tables.json --markdown tables.md
  kanoclip-eval --ablation --train-dataset visa --train-root ~/data/visa --dataset mvtec --root ~/data/mvtec \\
      --backbone vit-l-14-336 --kd-margin 1.5 --checkpoints ablation/

Exit codes: 0 all fine; 1 a failure, or images that were skipped; 2 wrong usage.
"""


_FILE = click.Path(path_type=Path, dir_okay=False)


def _counts(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        counts = tuple(int(part) for part in value.split(",")) if value else ()
    except ValueError:
        counts = (0,)
    if any(count < 1 for count in counts):
        raise click.BadParameter(f"{value!r}: write whole numbers from 1, such as 1,2,4", ctx=ctx, param=param)
    return tuple(dict.fromkeys(counts))


def _tiles(ctx: click.Context, param: click.Parameter, value: str | None) -> TileGrid | str | None:
    if value is None or value == "auto":
        return value
    try:
        return parse_grid(value)
    except KanoclipError as error:
        raise click.BadParameter(str(error), ctx=ctx, param=param) from None


@click.command(cls=BundleCommand, epilog=_EPILOG)
@click.option("--bundle", metavar="PATH", help="Measure a bundle. Default, and called builtin: the shipped one.")
@click.option("--checkpoint", type=click.Path(path_type=Path), metavar="FILE", help="Measure a checkpoint in torch.")
@click.option(
    "--prompts",
    type=click.Choice(["learned", "template", "handcrafted"]),
    help="Measure a backbone without a checkpoint: handcrafted is the training-free baseline.",
)
@click.option("--backbone", metavar="NAME", help="For --prompts and --ablation: a name such as vit-l-14-336.")
@click.option("--weights", default="auto", show_default=True, metavar="auto|none|FILE", help="The backbone's weights.")
@click.option("--image-size", type=click.IntRange(min=1), metavar="PIXELS", help="Default: the backbone's own.")
@click.option("--no-vv", is_flag=True, help="For --prompts: plain CLIP, without V-V path and modules.")
@click.option("--windows", is_flag=True, help="For --prompts: look through windows of patches too, as WinCLIP does.")
@click.option(
    "--sigma",
    type=Decimal(0, 100, min_open=True),
    metavar="PIXELS",
    help="Of the maps' Gaussian, for --checkpoint and --prompts. Default: the image's height by 336, times 4.",
)
@click.option(
    "--suite",
    "suite_file",
    type=_FILE,
    metavar="FILE.toml",
    help="Measure what the file names on the datasets whose folders it gives, and write tables 1 to 3.",
)
@click.option("--dataset", metavar="NAME", help="Layout of the dataset: see `kanoclip-data list`.")
@click.option("--root", type=click.Path(path_type=Path), metavar="DIR", help="The dataset's folder.")
@click.option("--category", "categories", multiple=True, metavar="NAME", help="Only these; repeatable.")
@click.option("--class-name", metavar="WORDS", help="Words for [class] in every prompt. Default: each category's own.")
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--backend", type=click.Choice(BACKENDS), default="auto", show_default=True, help="Of a bundle.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads. Default: the engine's choice.")
@click.option("--output", type=_FILE, metavar="FILE.json", help="Write all of it as JSON.")
@click.option("--csv", "csv_file", type=_FILE, metavar="FILE", help="Write the table as CSV.")
@click.option("--markdown", "markdown_file", type=_FILE, metavar="FILE", help="Write the table as Markdown.")
@click.option("--sheet", type=_FILE, metavar="FILE", help="Image of the best and worst cases (.png, .jpg).")
@click.option("--sheet-cases", type=click.IntRange(min=1), default=4, show_default=True, help="Of each kind.")
@click.option("--compare", type=click.Choice(["paper"]), help="Show the paper's figures for the dataset beside ours.")
@click.option("--skip-bad", is_flag=True, help="Leave out images that cannot be read; exit code 1 says so.")
@click.option(
    "--shots",
    callback=_counts,
    default="",
    metavar="LIST",
    help="Give a bundle so many good images as references, drawn anew --draws times: 1,2,4,8,16.",
)
@click.option(
    "--unlabelled", type=click.IntRange(min=3), metavar="N", help="Give it N frames of which no one says what they are."
)
@click.option("--share", type=Decimal(0, 1), default=0.1, show_default=True, help="Of them that are anomalous.")
@click.option("--draws", type=click.IntRange(min=1), default=5, show_default=True, help="For --shots and --unlabelled.")
@click.option(
    "--tiles",
    callback=_tiles,
    metavar="auto|ROWSxCOLUMNS",
    help="Cut frames into tiles; auto: by the references' aspect. Default: as the bundle has it.",
)
@click.option(
    "--false-alarm-rate",
    "rate",
    type=Decimal(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Of the threshold that references set; its recall is in the table.",
)
@click.option("--ablation", is_flag=True, help="Train and measure the rows of table 3.")
@click.option("--train-dataset", metavar="NAME", help="For --ablation: what to train on.")
@click.option("--train-root", type=click.Path(path_type=Path), metavar="DIR", help="For --ablation: its folder.")
@click.option("--train-category", "train_categories", multiple=True, metavar="NAME", help="For --ablation; repeatable.")
@click.option("--epochs", type=click.IntRange(min=1), default=15, show_default=True, help="For --ablation.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="For --ablation.")
@click.option("--checkpoints", type=click.Path(path_type=Path), metavar="DIR", help="For --ablation: where they go.")
@taking_training_options
@json_option
@quiet_option
@reading_options
def command(bundle: str | None, **values: Any) -> int:
    """Measure image and pixel metrics, each category and their mean."""
    context = click.get_current_context()
    training = training_arguments(context, values)
    if values["suite_file"] is None:
        for flag in ("dataset", "root"):
            if values[flag] is None:
                raise click.UsageError(f"--{flag} is missing: name it, or a --suite file.")
    options = Options(bundle=None if bundle is None else Path(bundle), training=training, **values)
    if options.suite_file is not None:
        return suites(context, options, options.suite_file)
    check(options)
    if options.ablation:
        return ablations(options)
    return few_shots(options) if options.shots or options.unlabelled else evaluated(options)
