"""Whether a stream still moves."""

from __future__ import annotations

import time
from collections.abc import Callable

from kanoclip.runtime.stream.control.progress import Progress

STUCK_S = 30.0
"""A detector, or a main thread, that has not answered for so long is stuck."""
SLOW = 5.0
"""Where frames take long, the detector is stuck after so many times the 95th percentile of their latency."""


class Liveness:
    """Watches a stream's counts. Only what this process should do by itself counts: frames that wait must be scored.

    That no frame comes is nothing to restart for: the sources have stall detectors of their own, which give up or try
    again, and a watched folder may stay empty for days.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ticked = self._moved = clock()
        self._done = 0
        self._let_go = 0  # delivered, and neither scored nor dropped: what a pause let go by
        self._limit = STUCK_S

    def tick(self, progress: Progress, *, paused: bool = False) -> None:
        """Takes the counts; called all the time by the thread that must not stop either."""
        now = self._ticked = self._clock()
        done = progress.frames + progress.skipped
        open_ones = sum(source.delivered for source in progress.sources) - done - progress.dropped
        self._let_go = open_ones if paused else min(self._let_go, open_ones)
        if done != self._done or paused or open_ones <= self._let_go:
            self._moved = now
        self._done = done
        self._limit = max(STUCK_S, SLOW * progress.latency_p95 / 1e3)

    def failure(self) -> str | None:
        """What is stuck and since when; None while all moves."""
        now = self._clock()
        if now - self._ticked > STUCK_S:
            return f"the main thread has not come round for {now - self._ticked:.0f} s"
        if now - self._moved > self._limit:
            return f"frames wait, and none was scored for {now - self._moved:.0f} s"
        return None

    def excuse(self) -> None:
        """Starts to count anew, after something that may take long."""
        self._ticked = self._moved = self._clock()
