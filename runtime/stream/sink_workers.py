"""The threads that write: one for each sink, with a bounded queue before it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from kanoclip.runtime.sinks.base import Sink
from kanoclip.runtime.stream.stats import StageStats
from kanoclip.runtime.system.bounded_queue import Mailbox, MailboxClosedError, Policy
from kanoclip.runtime.types import BadFrame, Result

SINK_GRACE_S = 10.0
"""How long the end of a run waits for a sink. One that hangs in a call for longer is left behind (a daemon thread)."""


class SinkThreads:
    """Gives every result to each sink, in a thread of the sink's own.

    Args:
        sinks: Closed each by its thread, whatever happens.
        capacity: Results of one source that may wait for a sink.
        policy: What happens when that is full.
        writers: How many sources there are.
        fail: Takes a sink's error.
        left_behind: Told the name of a sink that is left behind.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        capacity: int,
        policy: Policy,
        writers: int,
        *,
        fail: Callable[[BaseException], None],
        left_behind: Callable[[str], None],
    ) -> None:
        recent = policy is Policy.DROP_OLDEST
        self._threads = [
            _SinkThread(sink, Mailbox(capacity, policy, writers), StageStats(sink.name, recent=recent), fail)
            for sink in sinks
        ]
        self._left_behind = left_behind
        self._deadline: float | None = None

    @property
    def stats(self) -> list[StageStats]:
        """What each sink costs."""
        return [thread.stats for thread in self._threads]

    def start(self) -> None:
        """Starts to write."""
        for thread in self._threads:
            thread.start()

    def put(self, result: Result, source: int) -> None:
        """Takes a result of a source, by its number.

        Raises:
            MailboxClosedError: The run has ended, or a sink was left behind.
        """
        for thread in self._threads:
            thread.queue.put(result, source)

    def dropped(self) -> dict[str, int]:
        """Results lost so far by each sink that lost any: in its queue, and of its own accord."""
        counts = {
            thread.sink.name: thread.queue.dropped + int(getattr(thread.sink, "dropped", 0)) for thread in self._threads
        }
        return {name: count for name, count in counts.items() if count}

    def close(self) -> None:
        """Lets the threads end when they have written what is there."""
        for thread in self._threads:
            thread.queue.close()

    def abort(self) -> None:
        """Throws away what waits, and lets the threads end."""
        for thread in self._threads:
            thread.queue.abort()

    def leave_stuck(self) -> None:
        """Leaves those behind that have been in one call for `SINK_GRACE_S`, for who waits for room in their queue."""
        now = time.perf_counter()
        for thread in self._threads:
            since = thread.busy_since
            if not thread.left and since is not None and now - since > SINK_GRACE_S:
                self._leave(thread)

    def still_writing(self, patient: bool) -> threading.Thread | None:
        """A thread that is still at it after the last result; None when there is none to wait for.

        Args:
            patient: Wait for as long as it takes. Otherwise those that are at it `SINK_GRACE_S` after the first call
                that was not patient are left behind.
        """
        alive = [thread for thread in self._threads if thread.is_alive() and not thread.left]
        if not alive:
            return None
        if patient:
            self._deadline = None
        elif self._deadline is None:
            self._deadline = time.monotonic() + SINK_GRACE_S
        elif time.monotonic() >= self._deadline:
            for thread in alive:
                self._leave(thread)
            return None
        return alive[0]

    def join(self, seconds: float) -> None:
        """Waits so long in all."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    def _leave(self, thread: _SinkThread) -> None:
        thread.left = True
        thread.queue.abort()
        self._left_behind(thread.sink.name)


class _SinkThread(threading.Thread):
    """One sink's queue into the sink.

    Attributes:
        busy_since: `time.perf_counter` at which its present call began; None while it waits for a result.
        left: It was left behind: what it still has to say is of no interest.
    """

    def __init__(
        self, sink: Sink, queue: Mailbox[Result], stats: StageStats, fail: Callable[[BaseException], None]
    ) -> None:
        super().__init__(name=f"kanoclip-{sink.name}", daemon=True)
        self.sink, self.queue, self.stats = sink, queue, stats
        self.busy_since: float | None = None
        self.left = False
        self._fail = fail

    def run(self) -> None:
        try:
            try:
                with suppress(MailboxClosedError):
                    while True:
                        result = self.queue.get()
                        self.busy_since = time.perf_counter()
                        deliver(self.sink, result, self.stats)
                        self.busy_since = None
            finally:
                self.busy_since = time.perf_counter()
                self.sink.close()
        except BaseException as error:
            if not self.left:
                self._fail(error)


def deliver(sink: Sink, result: Result, stats: StageStats) -> None:
    """Gives a result to a sink and measures what it cost."""
    if isinstance(result, BadFrame):
        sink.skip(result)
        return
    elsewhere = getattr(sink, "cpu_ms", 0.0)  # of a sink that works in a thread of its own
    started, started_cpu = time.perf_counter(), time.thread_time()
    sink.write(*result)
    stats.add((time.perf_counter() - started) * 1e3)
    stats.add_cpu((time.thread_time() - started_cpu) * 1e3 + getattr(sink, "cpu_ms", 0.0) - elsewhere)
