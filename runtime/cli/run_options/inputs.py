"""What `kanoclip-run` reads: the options of its sources, and how they are opened."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import click

from kanoclip.runtime.cli.run_options.fields import option
from kanoclip.runtime.cli.run_options.kinds import Kind, Number, OneOf, Switch
from kanoclip.runtime.cli.run_options.secrets import Secret, Url
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.errors import SettingsError
from kanoclip.runtime.sources import ImageSource, Source, check_camera, is_endless, open_stream
from kanoclip.runtime.sources.files.reading import MAX_PIXELS, MOST_PIXELS, Reading
from kanoclip.runtime.sources.files.video import VIDEO_SUFFIXES
from kanoclip.runtime.sources.files.watched import WATCH
from kanoclip.runtime.sources.network.reconnecting import STALL_S
from kanoclip.runtime.sources.several import NamedSource, together
from kanoclip.runtime.system.net import redact_url


class Damaged(str, Enum):
    """What becomes of a damaged image."""

    SKIP = "skip"
    KEEP = "keep"


class _Camera(Kind):
    def check(self, value: Any) -> None:
        check_camera(value)

    def of_toml(self, value: Any, folder: Path) -> Any:
        number = isinstance(value, int) and not isinstance(value, bool)
        return super().of_toml(str(value) if number else value, folder)


@dataclass(frozen=True)
class SourceOptions:
    """One source: `[[source]]`.

    Attributes:
        where: What messages call its place: a line of the file, or the flag.
    """

    camera: str | None = option(
        "--camera",
        _Camera(),
        None,
        "Camera index (on Linux N of /dev/videoN), device file, CSI camera of a Jetson, or genicam:// and a camera's "
        "name. May be repeated.",
        metavar="N|DEVICE|csi://N",
        repeat=True,
    )
    url: Secret | None = option(
        "--source",
        Url("KANOCLIP_SOURCE"),
        None,
        "Image, video, folder, glob pattern, rtsp:// or http:// URL, gst:// and a GStreamer pipeline, watch:// and a "
        "folder where images will appear, or test://, a test pattern. May be repeated.",
        metavar="PATH|GLOB|URL",
        repeat=True,
    )
    name: str | None = option(None, Kind(), None, "What lines, files and the page call it. Default: from its address.")
    reconnect: bool = option(
        "--reconnect/--no-reconnect",
        Switch(),
        True,
        "When a camera or stream is lost, open it again until it is back. Default: yes.",
    )
    wait_for_source: bool = option(
        "--wait-for-source",
        Switch(),
        False,
        "Wait for a camera or stream that is away at the start, as at boot, instead of failing.",
    )
    stall_timeout: float = option(
        "--stall-timeout",
        Number(0),
        STALL_S,
        "A live source that delivers nothing for so long is lost; 0: never. Raise it for triggered cameras.",
        metavar="SECONDS",
        show=True,
    )
    reduced_jpeg: bool = option(
        "--reduced-jpeg",
        Switch(),
        False,
        "Decode large JPEGs at a smaller scale: faster, and scores differ a little. Not with --output, --window or "
        "--serve.",
    )
    damaged: Damaged = option(
        "--damaged",
        OneOf(tuple(Damaged)),
        Damaged.SKIP,
        "Damaged JPEG files: left out with the reason, or scored with a warning.",
        show=True,
    )
    bit_depth: int | None = option(
        "--bit-depth",
        Number(8, 16, whole=True),
        None,
        "Bits of a camera whose images have 16, where neither the files nor their range tell it.",
        metavar="N",
    )
    max_pixels: int = option(
        "--max-pixels",
        Number(1, MOST_PIXELS, whole=True),
        MAX_PIXELS,
        "Leave out an image of more pixels, by its header, and refuse a video of such frames.",
        metavar="N",
        show=True,
    )
    where: str = field(default="", compare=False)

    @property
    def spec(self) -> str:
        """What is opened; may hold a password.

        Raises:
            SettingsError: It stands in a variable or a file that is not there.
        """
        if self.camera is not None:
            return self.camera
        assert self.url is not None
        try:
            return self.url.read()
        except SettingsError as error:
            raise SettingsError(f"{self.where}: {error}") from None

    @property
    def shown(self) -> str:
        """What messages call it, without credentials."""
        if self.camera is not None or self.url is None:
            return f"camera {self.camera}"
        return redact_url(self.url.literal) if self.url.literal is not None else self.url.place

    @property
    def endless(self) -> bool:
        """Whether it goes on until it is stopped, as far as can be seen before it is open."""
        return is_endless(self.spec, camera=self.camera is not None)

    def open(self, model_size: tuple[int, int] | None = None) -> Source:
        """Opens it.

        Args:
            model_size: As `Reading.model_size`.

        Raises:
            SourceError: It cannot be opened.
        """
        reading = reading_of(self.damaged, self.bit_depth, self.max_pixels)
        return open_stream(
            self.spec,
            camera=self.camera is not None,
            reconnect=self.reconnect,
            wait=self.wait_for_source,
            stall_s=self.stall_timeout or None,
            reading=replace(reading, model_size=model_size),
        )


@dataclass(frozen=True)
class Inputs:
    """What the user wants to have scored, cameras first."""

    sources: tuple[SourceOptions, ...]

    def few(self, most: int) -> bool:
        """Whether they are files and folders with no more than so many files, as far as that is seen at a glance."""
        left = most + 1
        for one in self.sources:
            if one.camera is not None or "://" in one.spec:
                return False
            left -= sum(1 for _ in islice(_files(Path(one.spec)), left))
            if left <= 0:
                return False
        return True

    def check(self) -> None:
        """Refuses what makes no sense, before anything is loaded.

        Raises:
            click.UsageError: The message names the flag, or the file and the line.
        """
        if not self.sources:
            raise click.UsageError(
                "give at least one --camera N or --source PATH|GLOB|URL, or a --config with [[source]]"
            )
        _refuse_twins((f"{one.where}: {one.shown}", (one.camera, one.url)) for one in self.sources)
        _refuse_twins((f"{one.where}: the name {one.name!r}", one.name) for one in self.sources if one.name is not None)

    @property
    def live(self) -> bool:
        """Whether frames come at their own pace, as far as can be seen before the sources are open."""
        return any(one.endless and not one.spec.startswith(WATCH) for one in self.sources)

    @property
    def endless(self) -> bool:
        """Whether the run goes on until it is stopped, as far as can be seen before the sources are open."""
        return any(one.endless for one in self.sources)

    @property
    def alone(self) -> bool:
        """Whether there is one source only."""
        return len(self.sources) == 1

    @property
    def reduced_jpeg(self) -> bool:
        """Whether images of one are not read at full size."""
        return any(one.reduced_jpeg for one in self.sources)

    def open(self, detector: Detector, *, watched: bool) -> list[Source]:
        """Opens them.

        Args:
            detector: Whose model the images are for.
            watched: Whether somebody may look at whole images of a live source, now or later.

        Raises:
            click.UsageError: --reduced-jpeg was given with something else than images.
            SourceError: One cannot be opened, or they do not go together; none is left open.
        """
        with ExitStack() as opened:
            sources: list[Source] = []
            for one in self.sources:
                source = one.open(None if watched else detector.frame_size)
                opened.callback(source.close)
                if one.reduced_jpeg:
                    if not isinstance(source, ImageSource):
                        raise click.UsageError(
                            "--reduced-jpeg is for images: it does not go with a camera, video or stream"
                        )
                    source.reduced_for = detector.frame_size
                sources.append(source if one.name is None else NamedSource(source, one.name))
            sources = together(sources)
            opened.pop_all()
        return sources


def reading_of(damaged: Damaged, bit_depth: int | None, max_pixels: int) -> Reading:
    """What --damaged, --bit-depth and --max-pixels say, of any command that has them."""
    return Reading(damaged is Damaged.KEEP, bit_depth, max_pixels)


def _refuse_twins(named: Iterable[tuple[str, object]]) -> None:
    seen = set()
    for words, value in named:
        if value in seen:
            raise click.UsageError(f"{words} is given twice: leave one out")
        seen.add(value)


def source_in_file(one: SourceOptions) -> SourceOptions:
    """Refuses a `[[source]]` without an address, or with two.

    Raises:
        SettingsError: The message names the line.
    """
    if (one.camera is None) == (one.url is None):
        raise SettingsError(f"{one.where}: [[source]] needs either camera or url")
    return one


def _files(path: Path) -> Iterator[str]:
    """What may be images at a path or of a pattern; a video counts as endless many."""
    try:
        if path.is_dir():
            return (name for _, _, names in os.walk(path) for name in names)
        if path.suffix.lower() in VIDEO_SUFFIXES:
            return repeat(str(path))
        return iter([str(path)]) if path.exists() else glob.iglob(str(path), recursive=True)  # noqa: PTH207 - absolute or not
    except (OSError, ValueError):  # it is refused where it is opened
        return iter(())
