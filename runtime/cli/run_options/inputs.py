"""What `kanoclip-run` reads: its options, and the sources that they open."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from kanoclip.runtime.cli.options import grouped
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.sources import ImageSource, Source, check_camera, is_endless, open_stream
from kanoclip.runtime.sources.files.watched import WATCH
from kanoclip.runtime.sources.network.reconnecting import STALL_S
from kanoclip.runtime.sources.several import together
from kanoclip.runtime.system.net import redact_url

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Inputs:
    """What the user wants to have scored."""

    camera: tuple[str, ...]
    source: tuple[str, ...]
    reconnect: bool
    wait_for_source: bool
    stall_timeout: float
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
        return bool(self.camera) or any(is_endless(one) and not one.startswith(WATCH) for one in self.source)

    @property
    def endless(self) -> bool:
        """Whether the run goes on until it is stopped, as far as can be told before the sources are open."""
        return bool(self.camera) or any(is_endless(one) for one in self.source)

    @property
    def alone(self) -> bool:
        """Whether there is one source only."""
        return len(self.camera) + len(self.source) == 1

    def open(self, detector: Detector) -> list[Source]:
        """Opens them, cameras first.

        Raises:
            click.UsageError: --reduced-jpeg was given with something else than images.
            SourceError: One cannot be opened, or they do not go together; none is left open.
        """
        with ExitStack() as opened:
            sources: list[Source] = []
            for camera, spec in [(True, one) for one in self.camera] + [(False, one) for one in self.source]:
                source = open_stream(
                    spec,
                    camera=camera,
                    reconnect=self.reconnect,
                    wait=self.wait_for_source,
                    stall_s=self.stall_timeout or None,
                )
                opened.callback(source.close)
                sources.append(source)
            if self.reduced_jpeg:
                for source in sources:
                    if not isinstance(source, ImageSource):
                        raise click.UsageError(
                            "--reduced-jpeg is for images: it does not go with a camera, video or stream"
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
        "Sources",
        click.option(
            "--camera",
            multiple=True,
            callback=_known_cameras,
            metavar="N|DEVICE|csi://N",
            help="Camera index (on Linux N of /dev/videoN), device file, CSI camera of a Jetson, or genicam:// and a "
            "camera's name. May be repeated.",
        ),
        click.option(
            "--source",
            multiple=True,
            metavar="PATH|GLOB|URL",
            help="Image, video, folder, glob pattern, rtsp:// or http:// URL, gst:// and a GStreamer pipeline, "
            "watch:// and a folder where images will appear, or test://, a test pattern. May be repeated.",
        ),
        click.option(
            "--reconnect/--no-reconnect",
            default=True,
            help="When a camera or stream is lost, open it again until it is back. Default: yes.",
        ),
        click.option(
            "--wait-for-source",
            is_flag=True,
            help="Wait for a camera or stream that is away at the start, as at boot, instead of failing.",
        ),
        click.option(
            "--stall-timeout",
            type=click.FloatRange(min=0),
            default=STALL_S,
            show_default=True,
            metavar="SECONDS",
            help="A live source that delivers nothing for so long is lost; 0: never. Raise it for triggered cameras.",
        ),
        click.option(
            "--reduced-jpeg",
            is_flag=True,
            help="Decode large JPEGs at a smaller scale: faster, and scores differ a little. Not with --output, "
            "--window or --serve.",
        ),
    )(command)
