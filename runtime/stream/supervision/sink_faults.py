"""A sink that fails while a stream goes on: what is reported, and when it is opened again."""

from __future__ import annotations

import time

from kanoclip.runtime.errors import KanoclipError, one_line
from kanoclip.runtime.sinks.base import SinkFactory
from kanoclip.runtime.sinks.outage import Outage
from kanoclip.runtime.system.backoff import Backoff

LAST_RETRY_S = 60.0
"""Longest pause before a sink is opened again."""
STEADY_S = 60.0
"""A sink that has worked for so long starts over with the shortest pause."""


class SinkFaults:
    """The failures of one sink.

    Args:
        factory: How it is opened, and reported.

    Attributes:
        outage: What is wrong at present.
        retry_at: Monotonic time before which it is not opened again.
    """

    def __init__(self, factory: SinkFactory) -> None:
        meanwhile = "the stream goes on, and results for it are dropped until it works"
        self.outage = Outage(factory.name, factory.notify, meanwhile)
        self.retry_at = 0.0
        self._factory = factory
        self._backoff = Backoff(factory.first_retry_s, LAST_RETRY_S, scatter=0.0)
        self._pauses = self._backoff.waits()
        self._steady_since = 0.0
        self._well_since: float | None = None  # in an outage: since when it has worked without a failure

    def hangs(self, lost_before: int) -> None:
        """One call takes too long; `lost_before`: the results that were lost before it."""
        self.outage.begin(f"no answer for {self._factory.patience_s:g} s", lost_before)
        self._well_since = None

    def failed(self, error: Exception, lost_before: int) -> None:
        """A call has failed; `lost_before`: the results that were lost before it."""
        now = time.monotonic()
        if self.outage.words is None and now - self._steady_since >= STEADY_S:
            self._pauses = self._backoff.waits()
        self.retry_at = now + next(self._pauses)
        self.outage.begin(words_of(error), lost_before)
        self._well_since = None

    def worked(self, lost: int) -> None:
        """A call has worked during an outage, which ends if that lasts; `lost`: the results that were lost by now."""
        now = time.monotonic()
        if self._well_since is None:
            self._well_since = now
        if now - self._well_since >= self._factory.settle_s:
            self.outage.end(lost)
            self._steady_since = now


def words_of(error: Exception) -> str:
    """An exception as part of a line, with the name of its type if it is not one of ours."""
    text = one_line(error)
    return text if isinstance(error, KanoclipError) else f"{type(error).__name__} {text}".strip()
