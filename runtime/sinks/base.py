"""What every output of the stream offers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from kanoclip.runtime.types import BadFrame, Detection, Frame

log = logging.getLogger(__name__)


class Sink(Protocol):
    """Takes detections in order. `write`, `skip` and `close` are called from one thread; `close` always comes.

    `BaseSink` provides what only some sinks need. `SinkFactory` is for a sink that may fail and come back while a
    stream goes on.
    """

    @property
    def name(self) -> str:
        """One word, used in the table of costs."""
        ...

    @property
    def shows(self) -> bool:
        """Whether it shows the image itself, and so needs it at full size."""
        ...

    @property
    def dropped(self) -> int:
        """Results that the sink itself has lost so far, as one with its own queue may. From any thread."""
        ...

    @property
    def cpu_ms(self) -> float:
        """Processor time so far of the sink's own threads, in milliseconds."""
        ...

    def write(self, frame: Frame, detection: Detection) -> None:
        """Takes one result.

        Raises:
            SinkError: It cannot be written; the message names the file.
        """
        ...

    def skip(self, bad: BadFrame) -> None:
        """Takes note of an image that could not be read.

        Raises:
            SinkError: It cannot be written.
        """
        ...

    def reopen(self) -> None:
        """Takes note that files may have been moved away. From any thread."""
        ...

    def close(self) -> None:
        """Flushes and finishes the output.

        Raises:
            SinkError: It cannot be finished.
        """
        ...


class ScreenSink(Sink, Protocol):
    """A sink that lives in the main thread, as window systems want it."""

    def poll(self) -> bool:
        """Serves the window's events.

        Returns:
            False once the user has asked to quit.
        """
        ...


class BaseSink:
    """The part of `Sink` that is the same for every sink that works in the caller's thread and loses nothing.

    Examples:
        >>> class Counter(BaseSink):
        ...     name, shows, count = "counter", False, 0
        ...     def write(self, frame, detection):
        ...         self.count += detection.is_anomalous
        ...     def skip(self, bad):
        ...         pass
        ...     def close(self):
        ...         pass
        >>> sink: Sink = Counter()
        >>> sink.dropped, sink.cpu_ms
        (0, 0.0)
    """

    @property
    def dropped(self) -> int:
        """0: nothing is lost."""
        return 0

    @property
    def cpu_ms(self) -> float:
        """0: there are no threads."""
        return 0.0

    def reopen(self) -> None:
        """Nothing: there are no files."""


@dataclass(frozen=True)
class SinkFactory:
    """How a stream opens a sink that may fail, hang and come back while the stream goes on.

    Attributes:
        open: Makes the sink, in the thread that writes to it; called again after each failure.
        name: As `Sink.name`, and what messages call it.
        shows: As `Sink.shows`.
        stream: It gets the results of the source of this name only; None for all.
        notify: Takes a message at the beginning of each outage and one at its end.
        patience_s: How long one result may take. A sink that needs longer gets no further ones until it has finished.
        grace_s: How long the end of a stream waits for it.
        first_retry_s: Pause before the first try after a failure; it doubles with each.
        settle_s: How long it must have worked before a message reports that it works again: an encoder may fail long
            after it was given a frame.
    """

    open: Callable[[], Sink]
    name: str
    shows: bool
    stream: str | None = None
    notify: Callable[[str], None] = log.warning
    patience_s: float = 5.0
    grace_s: float = 5.0
    first_retry_s: float = 1.0
    settle_s: float = 5.0
