"""All options of `kanoclip-export`, by their groups, and what of one group does not go with another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from kanoclip.export.cli.engine import EngineOptions, engine_options
from kanoclip.export.cli.frames import FrameOptions, frame_options
from kanoclip.export.cli.model import ModelOptions, model_options
from kanoclip.export.cli.parity import ParityOptions, parity_options
from kanoclip.export.cli.precision import PrecisionOptions, precision_options
from kanoclip.export.cli.result import ResultOptions, result_options
from kanoclip.runtime.cli.options import Command, taken, with_options


@dataclass(frozen=True)
class ExportOptions:
    """The command line.

    Attributes:
        model: What is exported.
        precision: In which numbers it computes.
        frames: What it takes.
        engine: Which engines are built.
        parity: How it is compared with torch.
        result: What is written where.
    """

    model: ModelOptions
    precision: PrecisionOptions
    frames: FrameOptions
    engine: EngineOptions
    parity: ParityOptions
    result: ResultOptions

    @classmethod
    def of(cls, values: dict[str, Any]) -> ExportOptions:
        """The groups.

        Args:
            values: Of all flags that `export_options` adds, by the names of the fields; they are taken out.
        """
        return cls(
            ModelOptions(**taken(values, ModelOptions)),
            PrecisionOptions(**taken(values, PrecisionOptions)),
            FrameOptions(**taken(values, FrameOptions)),
            EngineOptions(**taken(values, EngineOptions)),
            ParityOptions(**taken(values, ParityOptions)),
            ResultOptions(**values),
        )

    def check(self) -> None:
        """Refuses flags that do not go together.

        Raises:
            click.UsageError: Some do not; the message names them.
        """
        self.frames.check_batch()
        self.precision.check()
        self.engine.check()
        self.frames.check_tiles(self.parity.parity_images)
        if self.precision.precision == "int8-cpu" and self.engine.engine is not None:
            raise click.UsageError("--int8-cpu is for CPUs: take --int8 for an --engine.")
        self.model.check()


def export_options(command: Command) -> Command:
    """Adds all of the groups' flags to a command, in the order of the help."""
    groups = (model_options, precision_options, frame_options, engine_options, parity_options, result_options)
    return with_options(command, groups)
