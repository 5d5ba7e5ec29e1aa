"""The threads that write: one for each sink, with a bounded queue before it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from kanoclip.runtime.errors import KanoclipError, SinkError, one_line
from kanoclip.runtime.sinks.base import Sink, SinkFactory
from kanoclip.runtime.sinks.outage import Outage
from kanoclip.runtime.stream.stats import StageStats
from kanoclip.runtime.system.backoff import Backoff
from kanoclip.runtime.system.bounded_queue import Mailbox, MailboxClosedError, Policy
from kanoclip.runtime.types import BadFrame, Result

log = logging.getLogger(__name__)

SINK_GRACE_S = 10.0
"""How long the end of a run waits for a sink that was opened before it (see `SinkFactory.grace_s` for others)."""
LAST_RETRY_S = 60.0
"""Longest pause before a sink is opened again."""
STEADY_S = 60.0
"""A sink that has worked for so long starts over with the shortest pause."""


class SinkWorker(threading.Thread):
    """Writes results to one sink, in a thread of its own, which closes it whatever happens.

    The error of a sink that was opened before ends the run: the pipeline finds it in `error`. A sink
    that comes as a factory is opened here, and its errors stay here: after one it is closed, and opened anew by the
    first result that comes after a pause. While it takes too long, results for it are dropped.

    Args:
        sink: The sink, or how to open it.
        queue: What waits for it.
        stats: What it costs; shared by sinks of one name.

    Attributes:
        shows: As `Sink.shows`.
        error: What the thread ended with.
        left: It hung, and was left behind (a daemon thread): what it still reports is ignored.
    """

    def __init__(self, sink: Sink | SinkFactory, queue: Mailbox[Result], stats: StageStats) -> None:
        super().__init__(name=f"kanoclip-{sink.name}", daemon=True)
        self._recovers = isinstance(sink, SinkFactory)
        self._factory = sink if isinstance(sink, SinkFactory) else _opened_before(sink)
        self._sink: Sink | None = None
        self.sink_name, self.shows, self.stats = sink.name, sink.shows, stats
        self.error: BaseException | None = None
        self.left = False
        self._queue = queue
        self._lossless = queue.policy is Policy.WAIT
        self._opened = threading.Event()
        self._lock = threading.Lock()  # of the next two
        self._busy_since: float | None = None  # monotonic time at which its present call began
        self._stuck = False  # it has been in one call for too long
        self._closing = False
        self._finishing = False  # no results come any more
        self._deadline: float | None = None
        self._lost = 0  # results that the sink failed at, or that came while it was not open
        self._lost_before = 0  # at the beginning of the present call
        self._closed_dropped = 0  # what sinks that are closed by now had dropped of their own accord
        meanwhile = "the stream goes on, and results for it are dropped until it works"
        self._outage = Outage(sink.name, self._factory.notify, meanwhile)
        self._backoff = Backoff(self._factory.first_retry_s, LAST_RETRY_S, scatter=0.0)
        self._pauses = self._backoff.waits()
        self._retry_at = self._steady_since = 0.0
        self._well_since: float | None = None  # in an outage: since when it has worked without a failure

    @property
    def dropped(self) -> int:
        """Results lost so far, in the queue, by failures and of the sink's own accord."""
        sink = self._sink
        return self._queue.dropped + self._lost + self._closed_dropped + (0 if sink is None else sink.dropped)

    @property
    def outage(self) -> str | None:
        """What is wrong now with a factory's sink; None while it works."""
        return self._outage.words

    def put(self, result: Result, source: int) -> None:
        """Takes a result of a source, by its number; where none may be lost, this waits for room.

        Raises:
            MailboxClosedError: The run has ended, or the sink was left behind.
        """
        if self._factory.stream is not None:
            item = result if isinstance(result, BadFrame) else result[0]
            if item.stream != self._factory.stream:
                return
        self._queue.put(result, source)

    def add_source(self) -> None:
        """Makes room for the results of one more source."""
        self._queue.add_writer()

    def wait_until_open(self) -> None:
        """Waits until the sink was opened once, or that has failed or takes too long."""
        self._opened.wait(self._factory.patience_s)

    def reopen(self) -> None:
        """Tells the sink that files may have been moved away. From any thread."""
        sink = self._sink
        if sink is not None:
            sink.reopen()

    def finish(self) -> None:
        """Lets the thread end when it has written what is there."""
        self._finishing = True
        self._queue.close()

    def abort(self) -> None:
        """Throws away what waits, and lets the thread end."""
        self._finishing = True
        self._queue.abort()

    def watch(self, *, hurry: bool) -> None:
        """Sees to a call that takes too long; called all the time by the main thread.

        Args:
            hurry: The run is to end: wait no longer than the grace. Else an opened sink has all the time it takes.
        """
        now, grace_s = time.monotonic(), self._factory.grace_s
        with self._lock:
            busy_s = 0.0 if self._busy_since is None else now - self._busy_since
            late = self._recovers and busy_s > self._factory.patience_s
            stuck = late and not (self._stuck or self._closing)
            if stuck:
                self._stuck = True
                self._queue.refuse()
        if stuck:
            self._outage.begin(f"no answer for {self._factory.patience_s:g} s", self._lost_before)
            self._well_since = None
        if not self.is_alive() or self.left:
            return
        if not self._finishing:
            if hurry and busy_s > grace_s:  # a thread may be waiting for room in the queue
                self._leave()
        elif not (hurry or late):
            self._deadline = None
        elif self._deadline is None:
            self._deadline = now + grace_s
        elif now >= self._deadline:
            self._leave()

    def _leave(self) -> None:
        """Leaves the thread behind. Where nothing may be lost that is an error, unless the sink may fail anyway."""
        self.left = True
        self._queue.abort()
        within = f"within {self._factory.grace_s:g} s"
        words = f"{self.sink_name}: did not finish {within} and was left behind; its output is incomplete"
        if self._recovers:
            self._factory.notify(f"{self.sink_name}: could not be finished {within} and is left as it is")
        elif self._lossless:
            self.error = SinkError(words)
        else:
            log.warning("%s", words)

    def run(self) -> None:
        """The thread."""
        try:
            try:
                self._open_first()
                with suppress(MailboxClosedError):
                    while True:
                        self._write(self._queue.get())
            finally:
                self._close()
        except BaseException as error:
            if not self.left:
                self.error = error

    def _open_first(self) -> None:
        """Opens a factory's sink. What no later try would mend ends the run: all but `SinkError` and OSError."""
        failure: Exception | None = None
        try:
            with self._busy():
                self._ready()
        except (SinkError, OSError) as error:
            failure = error
        finally:
            self._opened.set()
        self._conclude(failure)

    def _write(self, result: Result) -> None:
        """Gives the sink a result, unless a failure was too short a time ago."""
        if self._sink is None and time.monotonic() < self._retry_at:
            self._lost += 1
            return
        failure: Exception | None = None
        self._lost_before = self._queue.dropped + self._lost
        with self._busy():
            try:
                deliver(self._ready(), result, self.stats)
            except Exception as error:
                if not self._recovers:
                    raise
                failure = error
                self._lost += 1
                self._discard()
        self._conclude(failure)

    def _ready(self) -> Sink:
        if self._sink is None:
            self._sink = self._factory.open()
        return self._sink

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
                if not self._recovers:
                    raise
                if not self.left:
                    self._factory.notify(f"{self.sink_name}: {_words(error)}")

    @contextmanager
    def _busy(self) -> Iterator[None]:
        """The sink is in a call: `watch` sees how long."""
        with self._lock:
            self._busy_since = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._busy_since = None
                if self._stuck:
                    self._stuck = False
                    self._queue.accept()

    def _conclude(self, failure: Exception | None) -> None:
        """Reports once why a sink fails, and once that it works again."""
        if isinstance(failure, BrokenPipeError):
            raise failure  # the reader of standard output has gone: the run ends, and has not failed
        if self.left:
            return
        now = time.monotonic()
        if failure is not None:
            if self._outage.words is None and now - self._steady_since >= STEADY_S:
                self._pauses = self._backoff.waits()
            self._retry_at = now + next(self._pauses)
            self._outage.begin(_words(failure), self._lost_before)
            self._well_since = None
        elif self._outage.words is not None:
            if self._well_since is None:
                self._well_since = now
            if now - self._well_since >= self._factory.settle_s:
                self._outage.end(self._queue.dropped + self._lost)
                self._steady_since = now


def _opened_before(sink: Sink) -> SinkFactory:
    return SinkFactory(lambda: sink, sink.name, sink.shows, grace_s=SINK_GRACE_S)


def deliver(sink: Sink, result: Result, stats: StageStats) -> None:
    """Gives a result to a sink and measures what it cost."""
    if isinstance(result, BadFrame):
        sink.skip(result)
        return
    elsewhere = sink.cpu_ms  # of threads of its own
    started, started_cpu = time.perf_counter(), time.thread_time()
    sink.write(*result)
    cpu_ms = (time.thread_time() - started_cpu) * 1e3 + sink.cpu_ms - elsewhere
    stats.add_both((time.perf_counter() - started) * 1e3, cpu_ms)


def _words(error: Exception) -> str:
    """An exception as part of a line, with the name of its type if it is not one of ours."""
    text = one_line(error)
    return text if isinstance(error, KanoclipError) else f"{type(error).__name__} {text}".strip()
