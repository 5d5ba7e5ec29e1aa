"""What the main thread does while the others work: signals, the screen, the status line, and a look at who hangs."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from kanoclip.runtime.stream.run_state import RunState
from kanoclip.runtime.stream.supervision.sink_watch import SinkWatch
from kanoclip.runtime.system.signals import stop_on_signals

TICK_S = 0.03
"""How often the sinks are looked after, where there is no screen that waits for results."""
REPORT_S = 0.1
"""How often the run's state is reported to whoever calls `Pipeline.run`."""
SOURCE_GRACE_S = 2.0
"""How long readers may stay in a device's blocking read after a stop before they are left behind (daemon threads)."""


class MainThread:
    """Looks after the threads of a run.

    Args:
        run: What they share.
        scorers: The threads that score.
    """

    def __init__(self, run: RunState, scorers: Sequence[threading.Thread]) -> None:
        self._run = run
        self._scorers = scorers
        self._watches = [SinkWatch(sink, lossless=run.waits) for sink in run.sinks]
        self._all_scored = self._signalled = False

    def signals(self) -> AbstractContextManager[None]:
        """Within it SIGINT and SIGTERM end the run after the frame in work."""
        return stop_on_signals(self._signal, lambda: self._signalled)

    def look_after(self, on_tick: Callable[[], None] | None) -> None:
        """Until all is done, what hangs is left behind, and a screen that is to stay was closed.

        Args:
            on_tick: Called about every `REPORT_S` seconds.
        """
        reported_at = -math.inf
        while (busy := self._at_work()) is not None:
            if self._run.screen is None:
                busy.join(TICK_S)
            else:
                self._show()
            if on_tick is not None and time.monotonic() - reported_at >= REPORT_S:
                reported_at = time.monotonic()
                on_tick()
        while self._held_open():
            self._show()

    def _signal(self) -> None:
        """A signal's handler: only the loop that it interrupts may take locks."""
        self._signalled = True

    def _show(self) -> None:
        if self._run.screen is not None and not self._run.screen.show():
            self._run.stop(interrupted=True)

    def _held_open(self) -> bool:
        """Whether the screen stays although all is done."""
        run = self._run
        run.interrupted |= self._signalled
        return run.config.hold_screen and run.screen is not None and not run.interrupted and run.error is None

    def _at_work(self) -> threading.Thread | None:
        """A thread to wait for; None when all is done, and what hangs is left behind."""
        run = self._run
        if self._signalled and not run.interrupted:
            run.stop(interrupted=True)
        scorer = next((thread for thread in self._scorers if thread.is_alive()), None)
        if scorer is None and not self._all_scored:
            self._all_scored = True
            run.stop()
            run.frames.abort()  # nobody reads on: wakes the sources' threads
            for sink in run.sinks:
                sink.queue.close()  # it may finish
        # Where nothing may be lost a sink has all the time it takes.
        hurry = run.interrupted or (scorer is None and not (run.waits and run.error is None))
        writing = []
        for sink, watch in zip(run.sinks, self._watches, strict=True):
            watch.look(hurry=hurry)
            if sink.is_alive() and not sink.left:
                writing.append(sink)
            elif sink.error is not None and run.error is None:
                run.remember(sink.error) if sink.left else run.fail(sink.error)
        return scorer or next(iter(writing), None)


def join(threads: Sequence[threading.Thread]) -> None:
    """Waits for threads that were started, `SOURCE_GRACE_S` in all; one in a blocking call is left behind."""
    deadline = time.monotonic() + SOURCE_GRACE_S
    for thread in threads:
        if thread.ident is not None:
            thread.join(max(0.0, deadline - time.monotonic()))
