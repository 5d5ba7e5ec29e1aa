"""Refuses what can be refused without the model: before torch and open_clip are imported, which takes seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kanoclip.export.cli.model import ModelOptions
from kanoclip.export.cli.options import ExportOptions
from kanoclip.runtime.errors import KanoclipError

if TYPE_CHECKING:
    from kanoclip.export.engine import EngineRequest
    from kanoclip.runtime.bundle.manifest.tiles import TileGrid


@dataclass(frozen=True)
class Prepared:
    """An export whose flags are known to make sense.

    Attributes:
        options: The command line.
        model: Its model, with the hub's checkpoint as a file.
        grid: The tiles that it names; None for whole frames, and for `auto`.
        engine: The engines that it asks for; None for none.
    """

    options: ExportOptions
    model: ModelOptions
    grid: TileGrid | None
    engine: EngineRequest | None


def prepare(options: ExportOptions) -> Prepared:
    """Fetches the hub's checkpoint, reads what is written in the flags' texts, and looks at the places to write to.

    Raises:
        click.UsageError: A text makes no sense, or something of the user's would be overwritten.
        KanoclipError: The hub's checkpoint cannot be had.
    """
    model = options.model.fetched()
    try:
        grid = options.frames.grid()
        engine = options.engine.request(options.precision.precision)
        _check_places(options, model)
    except KanoclipError as error:
        raise click.UsageError(str(error)) from error
    return Prepared(options, model, grid, engine)


def _check_places(options: ExportOptions, model: ModelOptions) -> None:
    from kanoclip.export.staging import check_output
    from kanoclip.export.triton import check_repository
    from kanoclip.runtime.system.files.guard import Read, Written, refuse_overwriting

    result = options.result
    bundle = result.bundle(model.name)
    if result.output is not None or model.checkpoint is None:  # else the checkpoint's backbone decides the name
        check_output(bundle)
    if result.triton is not None:
        check_repository(result.triton, bundle.stem)
    inputs: dict[str, Path | None] = {
        "the checkpoint": model.checkpoint,
        "the calibration images": options.precision.calibration_images,
        "the parity images": options.parity.parity_images,
    }
    refuse_overwriting(
        [Written("--output", bundle, replaced=True)],
        [Read(what, path) for what, path in inputs.items() if path is not None],
    )
