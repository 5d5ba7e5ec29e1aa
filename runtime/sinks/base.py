"""What every output of the stream offers."""

from __future__ import annotations

from typing import Protocol

from kanoclip.runtime.types import BadFrame, Detection, Frame


class Sink(Protocol):
    """Takes detections in order. `write`, `skip` and `close` are called from one thread; `close` always comes."""

    @property
    def name(self) -> str:
        """One word, used in the table of costs."""
        ...

    @property
    def shows(self) -> bool:
        """Whether it shows the image itself, and so needs it at full size."""
        ...

    def write(self, frame: Frame, detection: Detection) -> None:
        """Takes one result.

        Raises:
            SinkError: It cannot be written; the message names the file.
        """
        ...

    def skip(self, bad: BadFrame) -> None:
        """Learns of an image that could not be read.

        Raises:
            SinkError: It cannot be written.
        """
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
