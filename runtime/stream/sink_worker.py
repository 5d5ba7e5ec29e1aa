"""The threads that write: one for each sink, with a bounded queue before it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.sinks.base import ScreenSink, Sink, SinkFactory
from kanoclip.runtime.stream.counters import StageStats
from kanoclip.runtime.stream.supervision.sink_faults import SinkFaults, words_of
from kanoclip.runtime.system.queues import Mailbox, MailboxClosedError, MailboxEmptyError, Policy
from kanoclip.runtime.types import BadFrame, Result

SINK_GRACE_S = 10.0
"""How long the end of a run waits for a sink that was opened before it (see `SinkFactory.grace_s` for others)."""


class SinkWorker(threading.Thread):
    """Writes results to one sink, in a thread of its own, which closes it whatever happens.

    The error of a sink that was opened before ends the run: the pipeline finds it in `error`. A sink that comes as a
    factory is opened here, and its errors stay here: after one it is closed, and opened anew by the first result that
    comes after a pause. While it takes too long, results for it are dropped.

    Args:
        sink: The sink, or how to open it.
        queue: What waits for it.
        stats: What it costs; shared by sinks of one name.

    Attributes:
        recovers: It came as a factory.
        opened: It was opened once, or that has failed.
        faults: What is wrong with a sink that recovers.
        error: What the thread ended with.
        busy_since: Monotonic time at which its present call began; None between calls.
        left: It hung, and was left behind (a daemon thread): what it still reports is ignored.
    """

    def __init__(self, sink: Sink | SinkFactory, queue: Mailbox[Result], stats: StageStats) -> None:
        super().__init__(name=f"kanoclip-{sink.name}", daemon=True)
        self.recovers = isinstance(sink, SinkFactory)
        if not isinstance(sink, SinkFactory):
            before = sink
            sink = SinkFactory(lambda: before, before.name, before.shows, grace_s=SINK_GRACE_S)
        self.factory, self.queue, self.stats = sink, queue, stats
        self.sink_name, self.shows = sink.name, sink.shows
        self.opened = threading.Event()
        self.error: BaseException | None = None
        self.left = False
        self.faults = SinkFaults(sink)
        self._sink: Sink | None = None
        self._lock = threading.Lock()  # of the next three
        self.busy_since: float | None = None
        self._refusing = False  # that call takes too long
        self._closing = False
        self._lost = 0  # results that the sink failed at, or that came while it was not open
        self._lost_before = 0  # all that were lost, at the beginning of the present call
        self._closed_dropped = 0  # what sinks that are closed by now had dropped of their own accord

    @property
    def dropped(self) -> int:
        """Results lost so far, in the queue, by failures and of the sink's own accord."""
        sink = self._sink
        return self.queue.dropped + self._lost + self._closed_dropped + (0 if sink is None else sink.dropped)

    def put(self, result: Result, source: int) -> None:
        """Takes a result of a source, by its number; where none may be lost, this waits for room.

        Raises:
            MailboxClosedError: The run has ended, or the sink was left behind.
        """
        item = result if isinstance(result, BadFrame) else result[0]
        if self.factory.stream in (None, item.stream):
            self.queue.put(result, source)

    def reopen(self) -> None:
        """Tells the sink that files may have been moved away. From any thread."""
        sink = self._sink
        if sink is not None:
            sink.reopen()

    def refuse(self, call: float | None) -> None:
        """Drops results until the call that began at this time has ended; it takes too long."""
        with self._lock:
            begins = call == self.busy_since and not (self._refusing or self._closing)
            if begins:
                self._refusing = True
                self.queue.refuse()
        if begins:
            self.faults.hangs(self._lost_before)

    def run(self) -> None:
        """The thread."""
        try:
            try:
                self._attempt(None)
                self.opened.set()
                with suppress(MailboxClosedError):
                    while True:
                        self._attempt(self.queue.get())
            finally:
                self.opened.set()
                self._close()
        except BaseException as error:
            if not self.left:
                self.error = error

    def _attempt(self, result: Result | None) -> None:
        """Gives the sink a result, unless a failure was too short a time ago; opens it where it is not open.

        Args:
            result: None before the first: what no later try would mend ends the run then, all but `SinkError` and
                OSError.
        """
        if self._sink is None and time.monotonic() < self.faults.retry_at:
            self._lost += 1
            return
        failure: Exception | None = None
        self._lost_before = self.queue.dropped + self._lost
        with self._busy():
            try:
                if self._sink is None:
                    self._sink = self.factory.open()
                if result is not None:
                    deliver(self._sink, result, self.stats)
            except Exception as error:
                if not self.recovers or (result is None and not isinstance(error, (SinkError, OSError))):
                    raise
                failure = error
                self._lost += result is not None
                self._discard()
        if isinstance(failure, BrokenPipeError):
            raise failure  # the reader of standard output has gone: the run ends, and has not failed
        if failure is not None and not self.left:
            self.faults.failed(failure, self._lost_before)
        elif self.faults.outage.words is not None and not self.left:
            self.faults.worked(self.queue.dropped + self._lost)

    @contextmanager
    def _busy(self) -> Iterator[None]:
        """The sink is in a call: `SinkWatch` sees how long."""
        with self._lock:
            self.busy_since = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self.busy_since = None
                if self._refusing:
                    self._refusing = False
                    self.queue.accept()

    def _discard(self) -> None:
        """Closes a sink that has failed."""
        sink, self._sink = self._sink, None
        if sink is not None:
            self._closed_dropped += sink.dropped
            with suppress(Exception):
                sink.close()

    def _close(self) -> None:
        self._closing = True
        if self._sink is None:
            return
        with self._busy():
            try:
                self._sink.close()
            except Exception as error:
                if not self.recovers:
                    raise
                if not self.left:
                    self.factory.notify(f"{self.sink_name}: {words_of(error)}")


class ScreenSlot:
    """The sink of the main thread: it shows the newest result of each source, and never holds the stream up."""

    def __init__(self, sink: ScreenSink, sources: int, stats: StageStats) -> None:
        self.sink, self._stats = sink, stats
        self.newest: Mailbox[Result] = Mailbox(1, Policy.DROP_OLDEST, sources)

    def show(self) -> bool:
        """Shows a result if one comes soon; returns whether the screen stays open."""
        with suppress(MailboxEmptyError):
            deliver(self.sink, self.newest.get(timeout=0.03), self._stats)
        return self.sink.poll()


def deliver(sink: Sink, result: Result, stats: StageStats) -> None:
    """Gives a result to a sink and measures what it cost."""
    if isinstance(result, BadFrame):
        sink.skip(result)
        return
    elsewhere = sink.cpu_ms  # of threads of its own
    started, started_cpu = time.perf_counter(), time.thread_time()
    sink.write(*result)
    cpu_ms = (time.thread_time() - started_cpu) * 1e3 + sink.cpu_ms - elsewhere
    stats.add((time.perf_counter() - started) * 1e3, cpu_ms)
