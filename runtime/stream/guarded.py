"""A sink that may fail, hang and come back while a camera's stream goes on."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from kanoclip.runtime.errors import KanoclipError, SinkError, one_line
from kanoclip.runtime.sinks.base import Sink
from kanoclip.runtime.sinks.outage import Trouble
from kanoclip.runtime.system.backoff import Backoff
from kanoclip.runtime.types import BadFrame, Detection, Frame

log = logging.getLogger(__name__)

PATIENCE_S = 5.0
"""How long one result may take. A sink that needs longer is left alone until it has finished with that one."""
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 60.0
"""Pause before the first try after a failure; it doubles with each up to the last."""
STEADY_S = 60.0
"""A sink that has worked for so long starts over with the shortest pause."""
SETTLE_S = 5.0
"""How long a sink must have worked before it is said that it does again: what an encoder was sent may fail later."""
CLOSE_GRACE_S = 5.0
"""How long the end of the stream waits for a sink to finish."""


class GuardedSink:
    """Keeps what happens to a sink away from the stream: no error, and no wait longer than `PATIENCE_S`.

    A thread of its own opens the sink, writes to it and closes it; the caller waits for it, so that a sink's cost can
    be measured, but not for ever. After a failure the sink is closed, and opened anew by the first result that comes
    after a pause. Trouble is said once, and once that it is over.

    Args:
        open: Makes the sink; called again after each failure.
        name: As `Sink.name`, and what the messages call it.
        shows: As `Sink.shows`.
        notify: Takes each message.
        patience_s: As `PATIENCE_S`.
        close_grace_s: As `CLOSE_GRACE_S`.
        first_retry_s: As `FIRST_RETRY_S`.
        settle_s: As `SETTLE_S`.

    Raises:
        KanoclipError: `open` raised it at the first try, and it is no `SinkError`: no later one would do better. Other
            exceptions than that and OSError likewise.
    """

    def __init__(
        self,
        open: Callable[[], Sink],
        name: str,
        *,
        shows: bool,
        notify: Callable[[str], None] = log.warning,
        patience_s: float = PATIENCE_S,
        close_grace_s: float = CLOSE_GRACE_S,
        first_retry_s: float = FIRST_RETRY_S,
        settle_s: float = SETTLE_S,
    ) -> None:
        self.name = name
        self.shows = shows
        self._open = open
        self._notify = notify
        self._patience_s = patience_s
        self._close_grace_s = close_grace_s
        self._backoff = Backoff(first_retry_s, LAST_RETRY_S, scatter=0.0)
        self._settle_s = settle_s
        self._inner: Sink | None = None
        self._lost_before = 0
        self._refused = 0  # results that were not handed on; counted by the stream's thread
        self._failed = 0  # those that the sink failed at; counted by the sink's own thread, as the next
        self._inner_dropped = 0  # what sinks that are closed by now had dropped of their own accord
        self._trouble = Trouble(name, notify, "the stream goes on, and results for it are dropped until it works")
        self._well_since: float | None = None  # in trouble: since when it has worked without a failure
        self._steady_since = 0.0
        self._pauses = self._backoff.waits()
        self._retry_at = 0.0
        self._cpu_ms = 0.0
        self._hand = _Hand(f"kanoclip-{name}-guarded")
        self._hand.start(self._make_ready)
        if not self._hand.wait(patience_s):
            self._say_stuck()
            return
        refusal = self._hand.outcome
        if refusal is not None and not isinstance(refusal, (SinkError, OSError)):
            self._hand.end()
            raise refusal
        self._learn()

    @property
    def dropped(self) -> int:
        """Results lost so far: those that came while the sink did not work, and what it dropped of its own accord."""
        inner = self._inner
        own = self._refused + self._failed + self._inner_dropped
        return own + (_dropped_by(inner) if inner is not None else 0)

    @property
    def trouble(self) -> str | None:
        """What is wrong now; None while the sink works."""
        return self._trouble.words

    @property
    def cpu_ms(self) -> float:
        """Processor time that the sink's own thread has spent so far, in milliseconds."""
        return self._cpu_ms

    def write(self, frame: Frame, detection: Detection) -> None:
        """Hands a result on, or counts it as dropped.

        Raises:
            BrokenPipeError: Whoever read standard output has gone: the end of a run, and no failure.
        """
        self._deliver(lambda sink: sink.write(frame, detection))

    def skip(self, bad: BadFrame) -> None:
        """Hands on that an image could not be read; raises as `write` does."""
        self._deliver(lambda sink: sink.skip(bad))

    def reopen(self) -> None:
        """Passes on that files may have been moved away, to a sink that wants to know. From any thread."""
        again = getattr(self._inner, "reopen", None)
        if again is not None:
            again()

    def close(self) -> None:
        """Finishes the sink, and leaves it behind if that takes longer than `CLOSE_GRACE_S`."""
        deadline = time.monotonic() + self._close_grace_s
        if self._hand.wait(self._close_grace_s):
            self._hand.start(self._finish)
            if self._hand.wait(max(0.0, deadline - time.monotonic())):
                if self._hand.outcome is not None:
                    self._notify(f"{self.name}: {_words(self._hand.outcome)}")
                self._hand.end()
                return
        self._notify(f"{self.name}: could not be finished within {self._close_grace_s:g} s and is left as it is")
        self._hand.end()

    def _deliver(self, call: Callable[[Sink], None]) -> None:
        """Has the sink's thread make a call, unless it is busy or waits for its next try."""
        if not self._hand.wait(0.0):
            self._refused += 1
            return
        self._learn()  # of a call that took too long, and has ended since
        if self._inner is None and time.monotonic() < self._retry_at:
            self._refused += 1
            return
        self._lost_before = self._refused + self._failed
        self._hand.start(lambda: self._attempt(call))
        if self._hand.wait(self._patience_s):
            self._learn()
        else:
            self._say_stuck()

    def _attempt(self, call: Callable[[Sink], None]) -> None:
        """The sink's thread: opens the sink if need be, makes the call, and closes what has failed."""
        started = time.thread_time()
        try:
            call(self._make_ready())
        except Exception:
            self._failed += 1
            sink, self._inner = self._inner, None
            if sink is not None:
                self._inner_dropped += _dropped_by(sink)
                with suppress(Exception):
                    sink.close()
            raise
        finally:
            self._cpu_ms += (time.thread_time() - started) * 1e3

    def _make_ready(self) -> Sink:
        if self._inner is None:
            self._inner = self._open()
        return self._inner

    def _finish(self) -> None:
        if self._inner is not None:
            self._inner.close()

    def _learn(self) -> None:
        """Draws the conclusions from how the last call ended."""
        outcome = self._hand.outcome
        self._hand.outcome = None
        now = time.monotonic()
        if isinstance(outcome, BrokenPipeError):
            raise outcome
        if outcome is not None:
            if self._trouble.words is None and now - self._steady_since >= STEADY_S:
                self._pauses = self._backoff.waits()
            self._retry_at = now + next(self._pauses)
            self._trouble.begin(_words(outcome), self._lost_before)
            self._well_since = None
        elif self._trouble.words is not None and self._inner is not None:
            if self._well_since is None:
                self._well_since = now
            if now - self._well_since >= self._settle_s:
                self._trouble.end(self._refused + self._failed)
                self._steady_since = now

    def _say_stuck(self) -> None:
        self._trouble.begin(f"no answer for {self._patience_s:g} s", self._lost_before)
        self._well_since = None


class _Hand:
    """A thread that does one thing at a time for another one, which need not wait until it is done.

    Attributes:
        outcome: The exception that the last thing ended with.
    """

    def __init__(self, name: str) -> None:
        self.outcome: Exception | None = None
        self._work: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._idle = threading.Event()
        self._idle.set()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def start(self, thing: Callable[[], object]) -> None:
        """Begins a thing; the one before must be done."""
        self._idle.clear()
        self._work.put(thing)

    def wait(self, timeout: float) -> bool:
        """Waits up to so many seconds until nothing is being done."""
        return self._idle.wait(timeout)

    def end(self) -> None:
        """Lets the thread go when it is done; does not wait for one that hangs."""
        self._work.put(None)
        if self._idle.is_set():
            self._thread.join(1.0)

    def _serve(self) -> None:
        while (thing := self._work.get()) is not None:
            self.outcome = None
            try:
                thing()
            except Exception as error:
                self.outcome = error
            self._idle.set()


def _dropped_by(sink: Sink) -> int:
    """What a sink with a queue of its own has dropped."""
    return int(getattr(sink, "dropped", 0))


def _words(error: Exception) -> str:
    """An exception as part of a line; the name of its kind where it is none of ours."""
    text = one_line(error)
    return text if isinstance(error, KanoclipError) else f"{type(error).__name__} {text}".strip()
