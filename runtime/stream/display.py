"""The main thread's part of a stream: the newest results on the screen, or nothing but waiting."""

from __future__ import annotations

import threading
from contextlib import suppress

from kanoclip.runtime.sinks.base import ScreenSink
from kanoclip.runtime.stream.sink_workers import deliver
from kanoclip.runtime.stream.stats import StageStats
from kanoclip.runtime.system.bounded_queue import Mailbox, MailboxClosedError, MailboxEmptyError, Policy
from kanoclip.runtime.types import Result

TICK_S = 0.03
"""How often the main thread serves screen and status line."""


class Screen:
    """Shows the newest result of each source, and never holds the stream up.

    Args:
        sink: What shows them; None for no screen.
        sources: How many there are.
        recent: As `StageStats` takes it.

    Attributes:
        stats: What showing costs; empty without a screen.
    """

    def __init__(self, sink: ScreenSink | None, sources: int, *, recent: bool) -> None:
        self._sink = sink
        self._newest: Mailbox[Result] = Mailbox(1, Policy.DROP_OLDEST, sources)
        self.stats = [] if sink is None else [StageStats(sink.name, recent=recent)]

    @property
    def there(self) -> bool:
        """Whether there is a screen."""
        return self._sink is not None

    def put(self, result: Result, source: int) -> None:
        """Takes a result of a source, by its number; from any thread."""
        if self._sink is not None:
            self._newest.put(result, source)

    def serve(self, worker: threading.Thread | None) -> bool:
        """Shows the newest result; without a screen, waits a tick or until the worker ends.

        Returns:
            False once the user has asked to quit.
        """
        if self._sink is None:
            if worker is not None:
                worker.join(TICK_S)
            return True
        with suppress(MailboxEmptyError, MailboxClosedError):
            deliver(self._sink, self._newest.get(timeout=TICK_S), self.stats[0])
        return self._sink.poll()

    def close(self) -> None:
        """Closes it."""
        if self._sink is not None:
            self._sink.close()
