"""What `kanoclip-run` decides by: its options, and the files that are read again while it runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.cli.options import chosen_settings, decision_options, grouped
from kanoclip.runtime.detect.alarm import AlarmRule
from kanoclip.runtime.detect.saved_thresholds import Kept, own_settings
from kanoclip.runtime.detect.settings import Settings

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Decisions:
    """What the user wants frames to be scored by."""

    config: Path | None
    roi: Path | None
    threshold: float | None
    pixel_threshold: float | None
    min_area: int | None
    alarm: AlarmRule | None

    def file(self, bundle: Path) -> Path | None:
        """The settings file that a run of this bundle's folder goes by, which need not exist."""
        return self.config if self.config is not None else own_settings(bundle)

    def settings(self, file: Path | None) -> Settings:
        """What the file says, with the flags over it.

        Args:
            file: As `file` gives it; only the one that the user named must be there.

        Raises:
            SettingsError: The file or the polygons are no good.
        """
        there = file if file is not None and (file == self.config or file.exists()) else None
        return chosen_settings(
            there,
            self.roi,
            threshold=self.threshold,
            pixel_threshold=self.pixel_threshold,
            min_area=self.min_area,
            alarm=self.alarm,
        )

    def kept(self, bundle: Bundle) -> Kept:
        """What a start with these would use now.

        Raises:
            SettingsError: As `settings` does.
        """
        file = self.file(bundle.root)
        return Kept(bundle, self.settings(file), file)


def _not_nan(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Refuses NaN, which click's own range lets through."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("NaN is not in the range 0<=x<=1.", ctx=ctx, param=param)
    return value


def run_decision_options(command: _Command) -> _Command:
    """Adds what frames are scored by; the command gets it as `decisions`."""
    unit = click.FloatRange(0.0, 1.0)
    return grouped(
        "decisions",
        Decisions,
        "Decisions",
        click.option(
            "--threshold",
            type=unit,
            callback=_not_nan,
            help="Score from which a frame is anomalous. Default: the bundle's.",
        ),
        click.option(
            "--pixel-threshold",
            type=unit,
            callback=_not_nan,
            help="Map value from which a pixel counts. Default: the bundle's.",
        ),
        decision_options,
    )(command)
