"""The options of `kanoclip-learn`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from kanoclip.runtime.cli.options import backend_options, known_camera, reading_options, share
from kanoclip.runtime.ops.learn.observe import MOST_FRAMES, VIEWS
from kanoclip.runtime.sources.files.reading import Reading
from kanoclip.runtime.system.files.guard import Written

AUTO = "auto"


@dataclass(frozen=True)
class LearnOptions:
    """What the user wants; the fields are the flags of their names."""

    source: str | None
    camera: str | None
    bad: str | None
    output: Path | None
    class_name: str | None
    rows: int | None
    augment: tuple[str, ...]
    rate: float
    confidence: float | None
    unlabelled: int | None
    add: bool
    undo: bool
    drop_outliers: bool
    foreground: Path | None
    config: Path | None
    roi: Path | None
    tiles: str | None
    every: int
    max_frames: int | None
    plot: Path | None
    sheet: Path | None
    dry_run: bool
    reading: Reading
    backend: str
    device: str
    threads: int | None
    as_json: bool
    debug: bool

    def check(self, bundle: str | None) -> None:
        """Refuses flags that do not go together.

        Args:
            bundle: The one that was named, if any.

        Raises:
            click.UsageError: The message names them.
        """
        if bundle is None and self.output is None and not self.dry_run:
            raise click.UsageError(
                "name the bundle that is to learn, which is changed, or with --output NAME.kanoclip a folder for a "
                "copy of the built-in one"
            )
        if self.undo:
            if self.source or self.camera or self.add or self.output:
                raise click.UsageError("--undo goes back in BUNDLE: leave out --source, --camera, --add and --output")
            return
        if (self.source is None) == (self.camera is None):
            raise click.UsageError("give exactly one of --source PATH|GLOB|URL and --camera N")
        if self.add and (self.unlabelled or self.tiles or self.rows or self.augment or self.drop_outliers):
            raise click.UsageError(
                "--add takes the memory as it was fitted: leave out --unlabelled, --tiles, --rows, --augment and "
                "--drop-outliers"
            )
        if self.foreground is not None and (self.roi is not None or self.config is not None):
            raise click.UsageError("--foreground finds the region of interest: leave out --roi and --config")
        for flag, path, suffixes in (
            ("--plot", self.plot, (".png",)),
            ("--sheet", self.sheet, (".jpg", ".jpeg")),
            ("--foreground", self.foreground, (".json",)),
        ):
            if path is not None and path.suffix.lower() not in suffixes:
                raise click.UsageError(f"{flag} {path}: it is written as {suffixes[0]} only")

    @property
    def written(self) -> list[Written]:
        """What is written beside the bundle."""
        flags = ("--output", "--plot", "--sheet", "--foreground")
        paths = (self.output, self.plot, self.sheet, self.foreground)
        return [Written(flag, path) for flag, path in zip(flags, paths, strict=True) if path is not None]

    @property
    def most(self) -> int:
        """How many frames are looked at."""
        return min(self.max_frames or MOST_FRAMES, self.unlabelled or self.max_frames or MOST_FRAMES)


def learn_options(command: Callable[[str | None, LearnOptions], None]) -> Callable[..., None]:
    """Adds the options to a command, which gets them as one object."""

    @functools.wraps(command)
    def called(bundle: str | None, **values: Any) -> None:
        command(bundle, LearnOptions(**values))

    found: Callable[..., None] = called
    for add in reversed(_OPTIONS):
        found = add(found)
    return found


def _views(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Some of VIEWS, separated by commas."""
    chosen = tuple(part.strip() for part in value.split(",")) if value else ()
    if unknown := [part for part in chosen if part not in VIEWS]:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(VIEWS)}", ctx=ctx, param=param)
    return chosen


_path = click.Path(path_type=Path)
_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--source", metavar="PATH|GLOB|URL", help="Good frames: a folder, images, a video, a stream."),
    click.option("--camera", callback=known_camera, metavar="N|DEVICE|csi://N", help="Good frames from a camera."),
    click.option("--bad", metavar="PATH|GLOB", help="Frames that should be found: reported by folder, not used."),
    click.option(
        "--output", type=_path, metavar="NAME.kanoclip", help="Write a copy of the bundle rather than changing it."
    ),
    click.option("--class", "class_name", metavar="NAME", help="What the frames show; one of the bundle's classes."),
    click.option(
        "--rows", type=click.IntRange(min=1), metavar="N", help="Rows of the memory. Default: as many as fit the graph."
    ),
    click.option(
        "--augment", callback=_views, metavar="flips,rotations", help="Take the references mirrored and turned, too."
    ),
    click.option(
        "--false-alarm-rate",
        "rate",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        callback=share,
        default=0.05,
        show_default=True,
        help="Share of good frames that may be called anomalous; with too few references, the least that they allow.",
    ),
    click.option(
        "--confidence",
        type=click.FloatRange(0.5, 1, max_open=True),
        callback=share,
        metavar="SHARE",
        help="Keep the rate with this share of such sets of references, such as 0.95. Default: on average.",
    ),
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
        "--foreground",
        type=_path,
        metavar="FILE.json",
        help="Find the part before its background and score only there; give FILE.json to kanoclip-run as --roi.",
    ),
    click.option("--config", type=_path, metavar="FILE.toml", help="The line's file, for its region of interest."),
    click.option("--roi", type=_path, metavar="FILE.json", help="Polygons to score inside of and to ignore."),
    click.option(
        "--tiles", metavar="auto|RxC", help="Cut frames into tiles; auto: by the first frame's aspect. Default: as is."
    ),
    click.option(
        "--every", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Take one of N frames."
    ),
    click.option(
        "--max-frames", type=click.IntRange(min=1), metavar="N", help=f"Stop after N frames. Default: {MOST_FRAMES}."
    ),
    click.option("--plot", type=_path, metavar="FILE.png", help="Draw the scores, and with --bad the recall."),
    click.option("--sheet", type=_path, metavar="FILE.jpg", help="Show the references and what was left out."),
    click.option("--dry-run", is_flag=True, help="Change nothing."),
    reading_options,
    backend_options,
    click.option("--json", "as_json", is_flag=True, help="Print everything as JSON on standard output."),
    click.option("--debug", is_flag=True, help="Show the traceback of an error and the libraries' own messages."),
)
