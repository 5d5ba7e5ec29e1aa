"""What `kanoclip-run` reads: its options, and the sources that they open."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from kanoclip.runtime.cli.options import grouped
from kanoclip.runtime.detector import Detector
from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.sources import ImageSource, Source, check_camera, open_camera, open_source, redact_url
from kanoclip.runtime.sources.several import together

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Inputs:
    """What the user wants to have judged."""

    camera: tuple[str, ...]
    source: tuple[str, ...]
    reduced_jpeg: bool

    def check(self) -> None:
        """Refuses what makes no sense, before anything is loaded.

        Raises:
            click.UsageError: The message names the flag.
        """
        if not (self.camera or self.source):
            raise click.UsageError("give at least one --camera N or --source PATH|GLOB|URL")
        for flag, given in (("--camera", self.camera), ("--source", self.source)):
            for one in set(given):
                if given.count(one) > 1:
                    raise click.UsageError(f"{flag} {redact_url(one)} is given twice")

    @property
    def live(self) -> bool:
        """Whether frames come at their own pace, as far as can be told before the sources are open."""
        return bool(self.camera) or any("://" in one for one in self.source)

    @property
    def alone(self) -> bool:
        """Whether there is one source only."""
        return len(self.camera) + len(self.source) == 1

    def open(self, detector: Detector) -> list[Source]:
        """Opens them, cameras first.

        Raises:
            click.UsageError: --reduced-jpeg was given with something else than pictures.
            SourceError: One cannot be opened, or they do not go together; none is left open.
        """
        with ExitStack() as opened:
            sources: list[Source] = []
            for one in self.camera:
                sources.append(open_camera(one))
                opened.callback(sources[-1].close)
            for one in self.source:
                sources.append(open_source(one))
                opened.callback(sources[-1].close)
            if self.reduced_jpeg:
                for source in sources:
                    if not isinstance(source, ImageSource):
                        raise click.UsageError(
                            "--reduced-jpeg is for pictures: it does not go with a camera, video or stream"
                        )
                    source.reduced_for = detector.frame_size
            sources = together(sources)
            opened.pop_all()
        return sources


def _known_cameras(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Refuses what is no camera before anything is loaded."""
    try:
        for one in value:
            check_camera(one)
    except SourceError as error:
        raise click.BadParameter(str(error), ctx=ctx, param=param) from None
    return value


def input_options(command: _Command) -> _Command:
    """Adds what is read; the command gets it as `inputs`."""
    return grouped(
        "inputs",
        Inputs,
        click.option(
            "--camera",
            multiple=True,
            callback=_known_cameras,
            metavar="N|DEVICE|csi://N",
            help="Camera index (on Linux N of /dev/videoN), device file, or CSI camera of a Jetson. May be repeated.",
        ),
        click.option(
            "--source",
            multiple=True,
            metavar="PATH|GLOB|URL",
            help="Picture, video, folder, glob pattern, rtsp:// or http:// URL, or gst:// and a GStreamer pipeline. "
            "May be repeated.",
        ),
        click.option(
            "--reduced-jpeg",
            is_flag=True,
            help="Decode large JPEGs at a smaller scale: faster, and scores differ a little. Not with --output, "
            "--window or --serve.",
        ),
    )(command)
