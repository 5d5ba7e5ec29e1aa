"""`kanoclip-export`: a checkpoint becomes a bundle."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from kanoclip.export.cli.options import ExportOptions, export_options
from kanoclip.export.cli.preparing import prepare
from kanoclip.export.cli.printed import print_summary
from kanoclip.runtime.cli.options import json_option, quiet_option
from kanoclip.runtime.cli.terminal.building import builds_shown
from kanoclip.runtime.cli.terminal.console import Console

WIDE = 1000
"""Columns of what is printed as wide as it is, in a narrow terminal or a pipe too."""

_EPILOG = """
Examples:

\b
  kanoclip-export --fp16
  kanoclip-export --fp16 --class bottle --class cable --output line3.kanoclip
  kanoclip-export --tiles auto --parity-images good_frames/ --output line3.kanoclip
  kanoclip-export --int8-cpu --calibration-images good_frames/ --output line3-int8.kanoclip
  kanoclip-export --backbone vit-l-14-336 --checkpoint run/best.safetensors --fp16 --engine tensorrt-rtx
  kanoclip-export --list-backbones
  kanoclip-export --from-hub plant/line3-checkpoint@v2 --fp16
  kanoclip-export --backbone vit-l-14-336 --prompts handcrafted --weights CLIP.safetensors --fp16

The parity gate compares the graph with torch on images; an export that drifts writes nothing.
Exit codes: 0 written; 1 a failure; 2 wrong usage.
"""


@click.command(epilog=_EPILOG)
@export_options
@click.option(
    "--list-backbones",
    is_flag=True,
    help="Show the backbones with their size, work and licence, and leave.",
)
@json_option
@quiet_option
def command(*, list_backbones: bool, as_json: bool, quiet: bool, **values: Any) -> None:
    """Export KAnoCLIP to a bundle: ONNX with the classes' text baked in, a manifest, and engines if asked for."""
    if list_backbones:
        _list_backbones(as_json)
        return
    options = ExportOptions.of(values)
    options.check()
    prepared = prepare(options)

    from kanoclip.export.cli.exporting import check_backbone, export

    check_backbone(prepared)
    console = Console(stderr=True, quiet=quiet)
    with builds_shown(console) as progress:
        exported = export(prepared, progress)
    print_summary(console, exported.bundle, exported.manifest)
    if exported.warning is not None:
        console.print(f"warning: {exported.warning}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    if options.result.triton is not None:
        _serve(console, exported.bundle, options.result.triton)
    if as_json:
        click.echo(exported.manifest.to_json(), nl=False)


def _serve(console: Console, bundle: Path, repository: Path) -> None:
    """Puts the model into a repository of Triton too."""
    from kanoclip.export.triton import write_repository
    from kanoclip.runtime.bundle.bundle import Bundle

    served = write_repository(Bundle.open(bundle), repository)
    console.print(f"Triton model {served}", highlight=False, markup=False)


def _list_backbones(as_json: bool) -> None:
    """Prints the table, for a person or a program."""
    from kanoclip.export.cli.printed import print_backbones
    from kanoclip.train.weights.listing import list_backbones, unsuited

    found = list_backbones()
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
    else:
        print_backbones(Console(width=WIDE), found, unsuited())
