"""What every source of frames offers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from kanoclip.runtime.types import BadFrame, Frame


class Source(Protocol):
    """A finite or endless sequence of images.

    `frames` and `close` are called from one thread, the one that reads. OpenCV's captures are not safe to release
    while another thread reads from them.
    """

    @property
    def name(self) -> str:
        """What to call it in messages; never holds credentials."""
        ...

    @property
    def live(self) -> bool:
        """True when frames come at their own pace and a late reader misses them."""
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


@runtime_checkable
class Interruptible(Protocol):
    """A source that may wait for long: for a camera to come back, or for a file to appear."""

    def interrupt(self) -> None:
        """Makes `frames` end soon and without an error; may be called from any thread, and more than once."""
        ...
