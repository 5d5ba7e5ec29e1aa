"""The parity gate: on which images it compares the graph with torch, and how they are read."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import click

from kanoclip.runtime.cli.options import Command, reading_options, with_options
from kanoclip.runtime.sources.files.reading import Reading


@dataclass(frozen=True)
class ParityOptions:
    """The gate; what each means is in its option's help."""

    parity_images: Path | None
    parity_limit: int
    reading: Reading
    threads: int | None

    @property
    def images(self) -> Path:
        """The folder or image that is named, or the example photographs."""
        return self.parity_images or Path(str(resources.files("kanoclip.examples").joinpath("hazelnut_toy")))


_IMAGES = (
    click.option(
        "--parity-images",
        type=click.Path(exists=True, path_type=Path),
        metavar="PATH",
        help="Images for the parity gate; four travel with the bundle, small. Default: the example photographs.",
    ),
    click.option(
        "--parity-limit",
        type=click.IntRange(min=1),
        default=8,
        show_default=True,
        help="Most images to use. In labelled folders (good/ beside others), more make the AUROC before and after "
        "finer.",
    ),
)
_THREADS = click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads. Default: all cores.")


def parity_options(command: Command) -> Command:
    """Adds the flags to a command, which gets what those of reading say as `reading`."""
    return with_options(command, (*_IMAGES, reading_options, _THREADS))
