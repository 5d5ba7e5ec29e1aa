"""Where `kanoclip-run` puts what it finds: its options, and the sinks that they open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from kanoclip.runtime.cli.options import grouped, size
from kanoclip.runtime.cli.terminal.status import ImageTable
from kanoclip.runtime.sinks import (
    ImageFolderSink,
    JsonLinesSink,
    ScreenSink,
    Sink,
    SinkFactory,
    VideoSink,
    WindowSink,
    has_display,
)
from kanoclip.runtime.sinks.jsonl import STDOUT, Rotation
from kanoclip.runtime.sinks.per_source import PerSourceScreen, PerSourceSink
from kanoclip.runtime.sinks.video.encoders import h264_recipe
from kanoclip.runtime.sinks.video.segments import Segments
from kanoclip.runtime.sources import Source
from kanoclip.runtime.sources.files.video import VIDEO_SUFFIXES
from kanoclip.runtime.sources.several import file_names

_Command = TypeVar("_Command", bound=Callable[..., Any])

TABLE_LIMIT = 40
"""Up to so many images the table is printed without being asked for."""


@dataclass(frozen=True)
class Outputs:
    """What the user wants to see and keep."""

    output: Path | None
    video_segment: float | None
    video_max_bytes: int | None
    jsonl: str | None
    jsonl_append: bool
    jsonl_max_bytes: int | None
    jsonl_keep: int
    window: bool | None
    table: bool | None

    @property
    def takes_stdout(self) -> bool:
        """Whether standard output is for JSON lines."""
        return self.jsonl == STDOUT

    @property
    def shows(self) -> bool:
        """Whether whole images are asked for."""
        return self.output is not None or bool(self.window)

    def check(self) -> None:
        """Refuses what makes no sense, before anything is loaded.

        Raises:
            click.UsageError: The message names the flag.
        """
        if self.output is not None and self.output.suffix.lower() in VIDEO_SUFFIXES - {".mp4"}:
            raise click.UsageError(f"--output {self.output}: videos are written as .mp4 only")
        if self.video_segment is not None and not self._video:
            raise click.UsageError("--video-segment is for --output FILE.mp4")
        if self.video_max_bytes is not None and self.video_segment is None:
            raise click.UsageError("--video-max-bytes deletes whole files: give --video-segment as well")
        if self.jsonl in (None, STDOUT) and (self.jsonl_append or self.jsonl_max_bytes):
            raise click.UsageError("--jsonl-append and --jsonl-max-bytes are for --jsonl FILE")

    @property
    def _video(self) -> bool:
        return self.output is not None and self.output.suffix.lower() == ".mp4"

    @property
    def _segments(self) -> Segments | None:
        if self.video_segment is None:
            return None
        return Segments(seconds=self.video_segment, max_bytes=self.video_max_bytes)

    def rows(self, sources: Sequence[Source], quiet: bool) -> ImageTable | None:
        """The table of images, if there is to be one."""
        images = all(source.root is not None and source.count is not None for source in sources)
        if self.table and not images:
            raise click.UsageError("--table lists images: it does not go with a camera, video or stream")
        modest = images and sum(source.count or 0 for source in sources) <= TABLE_LIMIT
        show = modest if self.table is None else self.table
        return ImageTable(sources[0].root if len(sources) == 1 else None) if show and not quiet else None

    def open(
        self, sources: Sequence[Source], pending: ExitStack, *, endless: bool, untrained: bool
    ) -> list[Sink | SinkFactory]:
        """Opens them.

        Args:
            sources: What is scored.
            pending: Closes those that are open if a later one fails.
            endless: The run is to go on whatever happens to a sink.
            untrained: As the sinks take it.

        Raises:
            SinkError: One cannot be opened.
        """
        sinks: list[Sink | SinkFactory] = []
        sink = partial(open_sink, pending=pending, endless=endless)
        if self.output is not None:
            name = "video" if self._video else "images"
            if self._video:
                h264_recipe()  # tries the system's programs, which may take longer than a sink is given
            make = partial(_video, self.output, self._segments) if self._video else partial(_images, self.output)
            # Each source's own, so that one that fails leaves the others alone.
            makers = {source.name: partial(make, source, own, untrained) for source, own in _own_names(sources)}
            if len(sources) == 1:
                sinks += [sink(name, True, one) for one in makers.values()]
            elif endless:
                sinks += [SinkFactory(one, name, True, stream) for stream, one in makers.items()]
            else:
                opened: dict[str, Sink] = {}
                for stream, one in makers.items():
                    opened[stream] = one()
                    pending.callback(opened[stream].close)
                sinks.append(PerSourceSink(name, opened))
        if self.jsonl is not None:
            target = self.jsonl
            if self.takes_stdout:
                sinks.append(JsonLinesSink(target))
            else:
                # What a run of months wrote before it failed, or was started again, stays.
                append = self.jsonl_append or endless
                rotation = None if self.jsonl_max_bytes is None else Rotation(self.jsonl_max_bytes, self.jsonl_keep)
                sinks.append(sink("jsonl", False, lambda: JsonLinesSink(target, append=append, rotation=rotation)))
        return sinks

    def screen(self, sources: Sequence[Source], *, untrained: bool) -> ScreenSink | None:
        """The window, or one for each source, if there is to be one.

        Raises:
            SinkError: It cannot be opened.
        """
        live = any(source.live for source in sources)
        if not (self.window or (self.window is None and live and has_display())):
            return None
        windows = {source.name: WindowSink(f"kanoclip {source.name}", untrained=untrained) for source in sources}
        return windows[sources[0].name] if len(windows) == 1 else PerSourceScreen("window", windows)


def open_sink(
    name: str, shows: bool, make: Callable[[], Sink], *, pending: ExitStack, endless: bool
) -> Sink | SinkFactory:
    """Opens a sink; where the run is to go on whatever happens to it, the stream opens it, as often as need be."""
    if endless:
        return SinkFactory(make, name, shows)
    opened = make()
    pending.callback(opened.close)
    return opened


def _own_names(sources: Sequence[Source]) -> list[tuple[Source, str]]:
    """Each source with the name of its file or folder; empty where there is one."""
    if len(sources) == 1:
        return [(sources[0], "")]
    names = file_names([source.name for source in sources])
    return [(source, names[source.name]) for source in sources]


def _video(path: Path, segments: Segments | None, source: Source, name: str, untrained: bool) -> Sink:
    own = path.with_name(f"{path.stem}-{name}{path.suffix}") if name else path
    return VideoSink(own, source.fps, live=source.live, untrained=untrained, segments=segments)


def _images(folder: Path, source: Source, name: str, untrained: bool) -> Sink:
    return ImageFolderSink(folder / name, source.root, untrained=untrained)


def output_options(command: _Command) -> _Command:
    """Adds where results go; the command gets it as `outputs`."""
    return grouped(
        "outputs",
        Outputs,
        "Images, videos and lines",
        click.option(
            "--output",
            type=click.Path(path_type=Path),
            metavar="PATH",
            help="Folder for annotated images, or one .mp4. Existing files are overwritten. Several sources get a "
            "subfolder each, or a file NAME-SOURCE.mp4.",
        ),
        click.option(
            "--video-segment",
            type=click.FloatRange(min=1),
            metavar="SECONDS",
            help="Split a live recording into files NAME-TIME.mp4 of so many seconds.",
        ),
        click.option(
            "--video-max-bytes",
            callback=size,
            metavar="SIZE",
            help="Bytes of a source's files together, such as 20G; the oldest are deleted. Default: no limit.",
        ),
        click.option(
            "--jsonl",
            metavar="PATH|-",
            help="File for JSON lines, overwritten unless the source is live; - is standard output.",
        ),
        click.option("--jsonl-append", is_flag=True, help="Go on where the file ends. Default for live sources."),
        click.option(
            "--jsonl-max-bytes",
            callback=size,
            metavar="SIZE",
            help="Size, such as 100M, at which FILE becomes FILE.1 and so on. Default: no limit.",
        ),
        click.option(
            "--jsonl-keep",
            type=click.IntRange(min=1),
            default=5,
            show_default=True,
            metavar="N",
            help="Files kept beside FILE.",
        ),
        click.option(
            "--window/--no-window",
            default=None,
            help="Show a window. Default: for live sources, given a display.",
        ),
        click.option(
            "--table/--no-table",
            default=None,
            help=f"One row per image. Default: up to {TABLE_LIMIT} images.",
        ),
    )(command)
