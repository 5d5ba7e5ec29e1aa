"""Where `kanoclip-run` puts what it finds: the sinks, opened as their options say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from kanoclip.runtime.cli.run_options.engine import TABLE_LIMIT
from kanoclip.runtime.cli.run_options.sinks.by_type import SinkOptions, type_of
from kanoclip.runtime.cli.run_options.sinks.events import EventOptions, MqttOptions, SnapshotOptions, WebhookOptions
from kanoclip.runtime.cli.run_options.sinks.files import ImagesOptions, JsonlOptions, VideoOptions
from kanoclip.runtime.cli.terminal.status import ImageTable
from kanoclip.runtime.errors import SettingsError
from kanoclip.runtime.sinks import (
    JsonLinesSink,
    ScreenSink,
    Sink,
    SinkFactory,
    WindowSink,
    has_display,
)
from kanoclip.runtime.sinks.jsonl import STDOUT
from kanoclip.runtime.sinks.per_source import PerSourceScreen, PerSourceSink
from kanoclip.runtime.sinks.video.encoders import h264_recipe
from kanoclip.runtime.sources import Source
from kanoclip.runtime.sources.several import distinct, file_names
from kanoclip.runtime.system.files.guard import Read, Written, refuse_overwriting


@dataclass(frozen=True)
class Outputs:
    """Where the user wants results to go.

    Attributes:
        sinks: What is written and sent.
        window: Whether a window is shown; None: where there is a display, for live sources.
        table: Whether images are listed; None: where they are few.
    """

    sinks: tuple[SinkOptions, ...]
    window: bool | None
    table: bool | None

    @property
    def takes_stdout(self) -> bool:
        """Whether standard output is for JSON lines."""
        return any(isinstance(one, JsonlOptions) and one.path == STDOUT for one in self.sinks)

    @property
    def shows(self) -> bool:
        """Whether whole images are needed."""
        return bool(self.window) or any(one.shows for one in self.sinks)

    @property
    def may_show(self) -> bool:
        """Whether whole images of a live source are needed, as far as can be seen before it is open."""
        return self.shows or (self.window is None and has_display())

    @property
    def closed_to_sources(self) -> str | None:
        """Why no source may join while the run goes on; None where one may."""
        if any(isinstance(one, VideoOptions | ImagesOptions) for one in self.sinks):
            return "--output has a folder or a video for each source of the start: name it on the command line"
        return None

    @property
    def snapshots(self) -> Path | None:
        """The folder whose snapshots the page shows."""
        return next((one.path for one in self.sinks if isinstance(one, SnapshotOptions)), None)

    def check(self, config: Path | None = None) -> None:
        """Refuses what makes no sense, before anything is loaded.

        Args:
            config: The line's file, which nothing may overwrite.

        Raises:
            click.UsageError: The message names the flag, or the file and its line.
        """
        taken: dict[str | Path, str] = (
            {} if config is None else {config.absolute().resolve(): "it is the line's own file"}
        )
        for one in self.sinks:
            at = f"{one.where}: " if one.where else ""
            if isinstance(one, VideoOptions):
                _check_video(one, at)
            elif isinstance(one, JsonlOptions) and one.path == STDOUT and (one.append or one.max_bytes):
                raise click.UsageError(f"{at}--jsonl-append and --jsonl-max-bytes are for --jsonl FILE")
            if isinstance(one, MqttOptions | WebhookOptions) or one.path is None:
                continue
            path = one.path if one.path == STDOUT else Path(one.path).expanduser().absolute().resolve()
            if path in taken:
                raise click.UsageError(
                    f"{at}two sinks cannot write to {one.path} ({taken[path]}): give each its own path"
                )
            taken[path] = f"{one.where or type_of(one)} does"

    def check_apart(self, read: Sequence[Read]) -> None:
        """Refuses an output that the run reads, before anything is loaded or opened.

        Args:
            read: Sources, bundle, settings and polygons.

        Raises:
            SinkError: One would be overwritten; the message names the flag, or the file and its line.
        """
        refuse_overwriting(
            [
                Written(
                    one.where or type_of(one), Path(one.path), filled=isinstance(one, ImagesOptions | SnapshotOptions)
                )
                for one in self.sinks
                if not isinstance(one, MqttOptions | WebhookOptions) and one.path is not None and one.path != STDOUT
            ],
            read,
        )

    def makers(self, *, untrained: bool) -> None:
        """Refuses a broker or receiver that makes no sense, before anything is loaded.

        Raises:
            SettingsError: An address, a file or a secret is no good, or a library is missing. The message names the
                flag, or the file and its line, and holds no credentials.
        """
        for one in self.sinks:
            if isinstance(one, EventOptions):
                _maker(one, untrained)

    def rows(self, sources: Sequence[Source], quiet: bool) -> ImageTable | None:
        """The table of images, if there is to be one."""
        images = all(source.root is not None and source.count is not None for source in sources)
        if self.table and not images:
            raise click.UsageError("--table lists images: it does not go with a camera, video or stream")
        modest = images and sum(source.count or 0 for source in sources) <= TABLE_LIMIT
        show = modest if self.table is None else self.table
        return ImageTable(sources[0].root if len(sources) == 1 else None) if show and not quiet else None

    def open(
        self,
        sources: Sequence[Source],
        pending: ExitStack,
        *,
        endless: bool,
        untrained: bool,
        read: Sequence[Read] = (),
    ) -> list[Sink | SinkFactory]:
        """Opens them.

        Args:
            sources: What is scored.
            pending: Closes those that are open if a later one fails.
            endless: The run is to go on whatever happens to a sink.
            untrained: As the sinks take it.
            read: As `check_apart` takes it: only now are the names known that the sources' own files and folders have.

        Raises:
            SinkError: One cannot be opened, or is what the run reads.
        """
        refuse_overwriting(
            [
                Written(one.where or type_of(one), one.place(name), filled=isinstance(one, ImagesOptions))
                for one in self.sinks
                if isinstance(one, VideoOptions | ImagesOptions)
                for _, name in _own_names(sources)
            ],
            read,
        )
        sinks: list[Sink | SinkFactory] = []
        sink = partial(open_sink, pending=pending, endless=endless)
        for one, name in zip(self.sinks, distinct([type_of(one) for one in self.sinks]), strict=True):
            if isinstance(one, JsonlOptions):
                # What a run of months wrote before it failed, or was started again, stays.
                own = JsonLinesSink(STDOUT) if one.path == STDOUT else sink(name, False, partial(one.make, endless))
                sinks.append(own)
            elif isinstance(one, EventOptions):
                sinks.append(sink(name, one.shows, _maker(one, untrained)))
            else:
                if isinstance(one, VideoOptions):
                    h264_recipe()  # tries the system's programs, which may take longer than a sink is given
                # Each source's own, so that one that fails leaves the others alone.
                makers = {source.name: partial(one.make, source, own, untrained) for source, own in _own_names(sources)}
                if len(sources) == 1:
                    sinks += [sink(name, True, make) for make in makers.values()]
                elif endless:
                    sinks += [SinkFactory(make, name, True, stream) for stream, make in makers.items()]
                else:
                    opened: dict[str, Sink] = {}
                    for stream, make in makers.items():
                        opened[stream] = make()
                        pending.callback(opened[stream].close)
                    sinks.append(PerSourceSink(name, opened))
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


def _maker(one: EventOptions, untrained: bool) -> Callable[[], Sink]:
    try:
        return one.maker(untrained=untrained)
    except SettingsError as error:
        named = not one.where or str(error).startswith(f"{one.where}")  # by its flag already
        raise SettingsError(str(error) if named else f"{one.where}: {error}") from None


def _check_video(one: VideoOptions, at: str) -> None:
    if one.path is not None and one.path.suffix.lower() != ".mp4":
        raise click.UsageError(f"{at}--output {one.path}: videos are written as .mp4 only")
    if one.max_bytes is not None and one.segment is None:
        raise click.UsageError(f"{at}--video-max-bytes deletes whole files: give --video-segment as well")
