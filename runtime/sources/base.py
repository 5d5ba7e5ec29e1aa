"""What every source of frames offers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kanoclip.runtime.types import BadFrame, Frame


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """The state of a live source's connection.

    Attributes:
        connected: Whether frames come, or did until less than the stall limit ago.
        reconnects: How often it came back.
        lost_s: For how many seconds it has been away; None while connected.
        reason: Why it is away, without credentials; None while connected.
    """

    connected: bool
    reconnects: int
    lost_s: float | None
    reason: str | None


class Source(Protocol):
    """A finite or endless sequence of images.

    `frames` and `close` are called from one thread, the one that reads. OpenCV's captures are not safe to release
    while another thread reads from them. `interrupt` and `health` may be called from any thread; `BaseSource` has them
    for a source that never waits for long.
    """

    @property
    def name(self) -> str:
        """Its name in messages; never holds credentials."""
        ...

    @property
    def live(self) -> bool:
        """Whether frames come at their own pace, so that a late reader misses them."""
        ...

    @property
    def count(self) -> int | None:
        """Frames in all, where that is known beforehand; an estimate for a video."""
        ...

    @property
    def fps(self) -> float | None:
        """Frames per second at which it was or is recorded; None where that has no meaning or is unknown."""
        ...

    @property
    def root(self) -> Path | None:
        """Folder that the paths in `Frame.source` lie below; None when frames are not single files."""
        ...

    def frames(self) -> Iterator[Frame | BadFrame]:
        """Yields the images in order; may be called once.

        Raises:
            SourceError: The source as a whole has failed.
        """
        ...

    def close(self) -> None:
        """Releases the device, file or connection; harmless when repeated."""
        ...

    def interrupt(self) -> None:
        """Makes `frames` end soon and without an error, where it waits for a camera or a file; may be repeated."""
        ...

    def health(self) -> SourceHealth | None:
        """The connection's state; None for a source that has no connection to lose."""
        ...


class BaseSource:
    """The part of `Source` that is the same for every source that never waits for long."""

    def interrupt(self) -> None:
        """Nothing: the next frame comes soon."""

    def health(self) -> SourceHealth | None:
        """None: there is no connection."""
        return None


class WrappedSource:
    """The part of `Source` that is the same for every source that changes another one's frames.

    Args:
        source: The source that it reads, and closes with itself.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def name(self) -> str:
        """See `Source.name`."""
        return self._source.name

    @property
    def live(self) -> bool:
        """See `Source.live`."""
        return self._source.live

    @property
    def count(self) -> int | None:
        """See `Source.count`."""
        return self._source.count

    @property
    def fps(self) -> float | None:
        """See `Source.fps`."""
        return self._source.fps

    @property
    def root(self) -> Path | None:
        """See `Source.root`."""
        return self._source.root

    def interrupt(self) -> None:
        """See `Source.interrupt`."""
        self._source.interrupt()

    def health(self) -> SourceHealth | None:
        """See `Source.health`."""
        return self._source.health()

    def close(self) -> None:
        """Closes the source."""
        self._source.close()
