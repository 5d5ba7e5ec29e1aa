"""One sink for each of several sources; the stream sees them as one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

from kanoclip.runtime.sinks.base import ScreenSink, Sink
from kanoclip.runtime.types import BadFrame, Detection, Frame

AnySink = TypeVar("AnySink", bound=Sink)


class PerSourceSink(Generic[AnySink]):
    """Gives each result to the sink of the source that it came from.

    Args:
        name: As `Sink.name`.
        sinks: By the sources' names; at least one.
    """

    def __init__(self, name: str, sinks: Mapping[str, AnySink]) -> None:
        self.name = name
        self.shows = any(sink.shows for sink in sinks.values())
        self._sinks = dict(sinks)

    @property
    def dropped(self) -> int:
        """Results that the sinks themselves lost."""
        return sum(sink.dropped for sink in self._sinks.values())

    @property
    def cpu_ms(self) -> float:
        """Processor time of those that have threads of their own."""
        return sum(sink.cpu_ms for sink in self._sinks.values())

    def write(self, frame: Frame, detection: Detection) -> None:
        """Takes one result; raises as the source's sink does."""
        self._sinks[frame.stream].write(frame, detection)

    def skip(self, bad: BadFrame) -> None:
        """Takes note of an image that could not be read; raises as the source's sink does."""
        self._sinks[bad.stream].skip(bad)

    def reopen(self) -> None:
        """Passes on that files may have been moved away."""
        for sink in self._sinks.values():
            sink.reopen()

    def close(self) -> None:
        """Finishes all of them, even after one has failed; raises the first error."""
        failed: Exception | None = None
        for sink in self._sinks.values():
            try:
                sink.close()
            except Exception as error:
                failed = failed or error
        if failed is not None:
            raise failed


class PerSourceScreen(PerSourceSink[ScreenSink]):
    """A screen for each source."""

    def poll(self) -> bool:
        """Serves all of them; False once the user has asked to quit in one."""
        return all([screen.poll() for screen in self._sinks.values()])
