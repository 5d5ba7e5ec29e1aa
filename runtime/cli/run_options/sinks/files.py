"""Options of the sinks that write files: videos, images, JSON lines."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from kanoclip.runtime.cli.run_options.fields import option
from kanoclip.runtime.cli.run_options.kinds import Kind, Number, PathName, Size, Switch
from kanoclip.runtime.sinks import ImageFolderSink, JsonLinesSink, Sink, VideoSink
from kanoclip.runtime.sinks.jsonl import Rotation
from kanoclip.runtime.sinks.video.segments import Segments
from kanoclip.runtime.sources import Source

_OUTPUT = (
    "Folder for annotated images, or one .mp4. Existing files are overwritten. Several sources get a subfolder each, "
    "or a file NAME-SOURCE.mp4."
)


@dataclass(frozen=True)
class VideoOptions:
    """A recording: `[[sink]]` of the type video.

    Attributes:
        where: What messages call its place: a line of the file, or the flag; so do the other sinks'.
    """

    path: Path | None = option("--output", PathName(), None, _OUTPUT, metavar="PATH")
    segment: float | None = option(
        "--video-segment",
        Number(1),
        None,
        "Split a live recording into files NAME-TIME.mp4 of so many seconds.",
        metavar="SECONDS",
    )
    max_bytes: int | None = option(
        "--video-max-bytes",
        Size(),
        None,
        "Bytes of a source's files together, such as 20G; the oldest are deleted. Default: no limit.",
        metavar="SIZE",
    )
    where: str = field(default="", compare=False)

    @property
    def shows(self) -> bool:
        """Whether whole images are needed."""
        return True

    def place(self, name: str) -> Path:
        """A source's file; `name` is what tells it from the others', empty for a lone one."""
        assert self.path is not None
        return self.path.with_name(f"{self.path.stem}-{name}{self.path.suffix}") if name else self.path

    def make(self, source: Source, name: str, untrained: bool) -> Sink:
        """Opens a source's file; `name` as of `place`."""
        own = self.place(name)
        segments = None if self.segment is None else Segments(seconds=self.segment, max_bytes=self.max_bytes)
        return VideoSink(own, source.fps, live=source.live, untrained=untrained, segments=segments)


@dataclass(frozen=True)
class ImagesOptions:
    """Annotated images in a folder: `[[sink]]` of the type images."""

    path: Path | None = option("--output", PathName(), None, _OUTPUT, metavar="PATH")
    where: str = field(default="", compare=False)

    @property
    def shows(self) -> bool:
        """Whether whole images are needed."""
        return True

    def place(self, name: str) -> Path:
        """A source's folder; `name` as of `VideoOptions.place`."""
        assert self.path is not None
        return self.path / name

    def make(self, source: Source, name: str, untrained: bool) -> Sink:
        """Opens a source's folder; `name` as of `VideoOptions.place`."""
        return ImageFolderSink(self.place(name), source.root, untrained=untrained)


@dataclass(frozen=True)
class JsonlOptions:
    """JSON lines: `[[sink]]` of the type jsonl."""

    path: str | None = option(
        "--jsonl",
        Kind(),
        None,
        "File for JSON lines, overwritten unless the source is live; - is standard output.",
        metavar="PATH|-",
    )
    append: bool = option("--jsonl-append", Switch(), False, "Go on where the file ends. Default for live sources.")
    max_bytes: int | None = option(
        "--jsonl-max-bytes",
        Size(),
        None,
        "Size, such as 100M, at which FILE becomes FILE.1 and so on. Default: no limit.",
        metavar="SIZE",
    )
    keep: int = option(
        "--jsonl-keep", Number(1, whole=True), 5, "How many older files stay beside FILE.", metavar="N", show=True
    )
    where: str = field(default="", compare=False)

    @property
    def shows(self) -> bool:
        """Whether whole images are needed."""
        return False

    def make(self, append: bool) -> Sink:
        """Opens the file.

        Args:
            append: Go on where it ends, whatever the options say.
        """
        assert self.path is not None
        rotation = None if self.max_bytes is None else Rotation(self.max_bytes, self.keep)
        return JsonLinesSink(self.path, append=self.append or append, rotation=rotation)
