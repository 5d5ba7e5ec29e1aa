"""A source whose first frame is looked at before anything is made for it, such as an engine."""

from __future__ import annotations

from collections.abc import Iterator

from kanoclip.runtime.sources import Source
from kanoclip.runtime.sources.base import WrappedSource
from kanoclip.runtime.types import BadFrame, Frame


class FirstFrame(WrappedSource):
    """A source that tells the size of its first frame, and gives that frame with the others all the same.

    Args:
        source: What it reads; closed with it.
    """

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._read: list[Frame | BadFrame] = []
        self._others = source.frames()

    def size(self) -> tuple[int, int] | None:
        """(height, width) in pixels of the first frame that can be read, and waits for it; None where there is none.

        Raises:
            SourceError: The source failed.
        """
        for item in self._others:
            self._read.append(item)
            if isinstance(item, Frame):
                return item.image.shape[0], item.image.shape[1]
        return None

    def frames(self) -> Iterator[Frame | BadFrame]:
        """See `Source.frames`."""
        yield from self._read
        yield from self._others
