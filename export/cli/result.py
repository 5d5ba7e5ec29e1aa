"""What the export writes and where, and whose licence that takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from kanoclip.runtime.cli.options import Command, with_options


@dataclass(frozen=True)
class ResultOptions:
    """The results; what each means is in its option's help."""

    output: Path | None
    triton: Path | None
    accept_licence: str | None

    def bundle(self, backbone: str) -> Path:
        """The bundle's folder: the one that is named, or one in this folder with the backbone's name."""
        from kanoclip.runtime.bundle.bundle import SUFFIX

        return self.output or Path(backbone + SUFFIX)


_OPTIONS = (
    click.option(
        "--output",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="Bundle to write. Default: ./BACKBONE.kanoclip.",
    ),
    click.option(
        "--triton",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Also put the model into a model repository of NVIDIA Triton Inference Server.",
    ),
    click.option(
        "--accept-licence",
        metavar="NAME",
        help="Export weights that are for research only, whose licence this is; the manifest says so.",
    ),
)


def result_options(command: Command) -> Command:
    """Adds the flags to a command."""
    return with_options(command, _OPTIONS)
