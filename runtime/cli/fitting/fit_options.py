"""The options that `kanoclip-learn` and `kanoclip-calibrate` share: frames, bundle, false alarms."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from kanoclip.runtime.bundle.bundle import BUILTIN, Bundle
from kanoclip.runtime.cli.options import (
    backend_options,
    bundle_option,
    debug_option,
    json_option,
    known_camera,
    quiet_option,
    reading_options,
    share,
)
from kanoclip.runtime.cli.run_options.kinds import Decimal
from kanoclip.runtime.sources.files.reading import Reading
from kanoclip.runtime.system.files.guard import Written

PATH = click.Path(path_type=Path)


@dataclass(frozen=True)
class FitOptions:
    """What the user wants; the fields are the flags of their names."""

    bundle: str | None
    source: str | None
    camera: str | None
    bad: str | None
    output: Path | None
    class_name: str | None
    rate: float | None
    catch: float | None
    confidence: float | None
    config: Path | None
    roi: Path | None
    every: int
    max_frames: int | None
    plot: Path | None
    dry_run: bool
    reading: Reading
    backend: str
    device: str
    threads: int | None
    as_json: bool
    quiet: bool
    debug: bool

    @property
    def bundle_or_builtin(self) -> str:
        """The bundle that was named; commands that write into one do not guess which."""
        return BUILTIN if self.bundle is None else self.bundle

    def class_in(self, bundle: Bundle) -> str:
        """The class that the frames show.

        Raises:
            click.UsageError: The bundle does not have it, or has several and none is named.
        """
        classes = bundle.manifest.classes
        if self.class_name is not None and self.class_name not in classes:
            raise click.BadParameter(
                f"{self.class_name!r} is not in this bundle, which knows: {', '.join(classes)}", param_hint="'--class'"
            )
        if self.class_name is None and len(classes) > 1:
            raise click.UsageError(f"name the frames' class with --class: this bundle knows {', '.join(classes)}")
        return self.class_name or classes[0]

    def check_bundle(self, what: str) -> None:
        """Refuses to change a bundle that was not named.

        Args:
            what: Is done to it.

        Raises:
            click.UsageError: Neither it nor --output is named.
        """
        if self.bundle is None and self.output is None and not self.dry_run:
            raise click.UsageError(
                f"name the bundle {what}, which is changed, or with --output NAME.kanoclip a folder for a copy of the "
                "built-in one"
            )

    def check_frames(self) -> None:
        """Refuses flags about frames and false alarms that do not go together.

        Raises:
            click.UsageError: The message names them.
        """
        if (self.source is None) == (self.camera is None):
            raise click.UsageError("give exactly one of --source PATH|GLOB|URL and --camera N")
        if self.catch is not None and self.rate is not None:
            raise click.UsageError("--catch and --false-alarm-rate are two ways to choose one threshold: give one")

    def check_suffixes(self, *written: tuple[str, Path | None, tuple[str, ...]]) -> None:
        """Refuses files of another format than they are written in.

        Args:
            written: Flag, path and the suffixes that it may have, of each.

        Raises:
            click.UsageError: The message names it.
        """
        for flag, path, suffixes in (("--plot", self.plot, (".png",)), *written):
            if path is not None and path.suffix.lower() not in suffixes:
                raise click.UsageError(f"{flag} {path}: it is written as {suffixes[0]} only")

    @property
    def written(self) -> list[Written]:
        """What is written, and by which flag."""
        places = (("--output", self.output), ("--plot", self.plot))
        return [Written(flag, path) for flag, path in places if path is not None]


Options = TypeVar("Options", bound=FitOptions)


def fit_options(
    kind: type[Options], *own: Callable[[Any], Any], rate_help: str
) -> Callable[[Callable[[Options], None]], Callable[..., None]]:
    """Adds the shared options and a command's own to it; it gets them as one object.

    Args:
        kind: Of the object.
        own: The command's own options.
        rate_help: What --false-alarm-rate is by default.
    """

    def add(command: Callable[[Options], None]) -> Callable[..., None]:
        @functools.wraps(command)
        def called(**values: Any) -> None:
            command(kind(**values))

        found: Callable[..., None] = called
        for option in reversed([*_frames(), _rate(rate_help), *_promise(), *own, *_results()]):
            found = option(found)
        return found

    return add


def _frames() -> list[Callable[[Any], Any]]:
    return [
        bundle_option,
        click.option(
            "--source",
            metavar="PATH|GLOB|URL",
            help="Good frames: a folder, images, a video, a stream. Of a folder with good/ and others, the others are "
            "--bad.",
        ),
        click.option("--camera", callback=known_camera, metavar="N|DEVICE|csi://N", help="Good frames from a camera."),
        click.option(
            "--bad", metavar="PATH|GLOB", help="Frames that should be found: reported by folder, used by --catch alone."
        ),
        click.option(
            "--output", type=PATH, metavar="NAME.kanoclip", help="Write a copy of the bundle rather than changing it."
        ),
        click.option(
            "--class", "class_name", metavar="NAME", help="What the frames show; one of the bundle's classes."
        ),
    ]


def _rate(help_text: str) -> Callable[[Any], Any]:
    return click.option(
        "--false-alarm-rate",
        "rate",
        type=Decimal(0, 1, min_open=True, max_open=True),
        callback=share,
        metavar="SHARE",
        help=f"Share of good frames that may be called anomalous. Default: {help_text}",
    )


def _promise() -> list[Callable[[Any], Any]]:
    return [
        click.option(
            "--catch",
            type=Decimal(0, 1, min_open=True),
            callback=share,
            metavar="SHARE",
            help="The other way to choose: find this share of the bad frames, such as 0.9, and say what that costs.",
        ),
        click.option(
            "--confidence",
            type=Decimal(0.5, 1, max_open=True),
            callback=share,
            metavar="SHARE",
            help="Keep the rate in this share of calibrations, such as 0.95; it takes more frames. Default: on "
            "average.",
        ),
    ]


def _results() -> list[Callable[[Any], Any]]:
    return [
        click.option(
            "--every", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Take one of N."
        ),
        click.option("--max-frames", type=click.IntRange(min=1), metavar="N", help="Stop after N good frames."),
        click.option(
            "--plot", type=PATH, metavar="FILE.png", help="Draw the scores, and with bad frames the recall by rate."
        ),
        click.option("--dry-run", is_flag=True, help="Change nothing."),
        reading_options,
        backend_options,
        json_option,
        quiet_option,
        debug_option,
    ]
