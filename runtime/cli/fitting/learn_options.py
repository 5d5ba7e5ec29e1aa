"""The options of `kanoclip-learn`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from kanoclip.runtime.cli.fitting.fit_options import PATH, FitOptions, fit_options
from kanoclip.runtime.detect.learning.limits import RATE
from kanoclip.runtime.ops.learn.observe import MOST_FRAMES, VIEWS
from kanoclip.runtime.system.files.guard import Written

AUTO = "auto"


@dataclass(frozen=True)
class LearnOptions(FitOptions):
    """What the user wants."""

    rows: int | None
    augment: tuple[str, ...]
    unlabelled: int | None
    add: bool
    undo: bool
    drop_outliers: bool
    references_only: bool
    foreground: Path | None
    tiles: str | None
    sheet: Path | None

    def check(self) -> None:
        """Refuses flags that do not go together.

        Raises:
            click.UsageError: The message names them.
        """
        self.check_bundle("that is to learn")
        if self.undo:
            if self.source or self.camera or self.add or self.output:
                raise click.UsageError("--undo goes back in BUNDLE: leave out --source, --camera, --add and --output")
            return
        self.check_frames()
        fitted = (self.unlabelled, self.tiles, self.rows, self.augment, self.drop_outliers, self.references_only)
        if self.add and any(fitted):
            raise click.UsageError(
                "--add takes the memory as it was fitted: leave out --unlabelled, --tiles, --rows, --augment, "
                "--drop-outliers and --references-only"
            )
        if self.foreground is not None and (self.roi is not None or self.config is not None):
            raise click.UsageError("--foreground finds the region of interest: leave out --roi and --config")
        self.check_suffixes(("--sheet", self.sheet, (".jpg", ".jpeg")), ("--foreground", self.foreground, (".json",)))

    @property
    def written(self) -> list[Written]:
        """What is written beside the bundle."""
        more = (("--sheet", self.sheet), ("--foreground", self.foreground))
        return [*super().written, *(Written(flag, path) for flag, path in more if path is not None)]

    @property
    def rate_or_default(self) -> float:
        """The false-alarm rate that is wanted."""
        return self.rate or RATE

    @property
    def most(self) -> int:
        """How many frames are looked at."""
        return min(self.max_frames or MOST_FRAMES, self.unlabelled or self.max_frames or MOST_FRAMES)


def learn_options(command: Callable[[LearnOptions], None]) -> Callable[..., None]:
    """Adds the options to a command, which gets them as one object."""
    default = f"{RATE:g}, or the least that so few references carry."
    return fit_options(LearnOptions, *_OPTIONS, rate_help=default)(command)


def _views(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Some of VIEWS, separated by commas."""
    chosen = tuple(part.strip() for part in value.split(",")) if value else ()
    if unknown := [part for part in chosen if part not in VIEWS]:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(VIEWS)}", ctx=ctx, param=param)
    return chosen


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--unlabelled",
        type=click.IntRange(min=3),
        metavar="N",
        help="No one knows whether the first N frames are good: they score each other, and the odd ones are left out.",
    ),
    click.option("--add", is_flag=True, help="Add the frames to the memory that is there."),
    click.option("--undo", is_flag=True, help="Go back to the memory and thresholds before the last change."),
    click.option("--drop-outliers", is_flag=True, help="Leave out references that are unlike the others."),
    click.option(
        "--references-only",
        is_flag=True,
        help="Score by the references alone, without the zero-shot map: on a CPU about half the time a frame.",
    ),
    click.option(
        "--rows", type=click.IntRange(min=1), metavar="N", help="Rows of the memory. Default: as many as fit the graph."
    ),
    click.option(
        "--augment", callback=_views, metavar="flips,rotations", help="Take the references mirrored and turned, too."
    ),
    click.option(
        "--foreground",
        type=PATH,
        metavar="FILE.json",
        help="Find the part before its background and score only there; give FILE.json to kanoclip-run as --roi.",
    ),
    click.option("--config", type=PATH, metavar="FILE.toml", help="The line's file, for its region of interest."),
    click.option("--roi", type=PATH, metavar="FILE.json", help="Polygons to score inside of and to ignore."),
    click.option(
        "--tiles", metavar="auto|RxC", help="Cut frames into tiles; auto: by the first frame's aspect. Default: as is."
    ),
    click.option("--sheet", type=PATH, metavar="FILE.jpg", help="Show the references and what was left out."),
)
