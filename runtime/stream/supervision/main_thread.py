"""The main thread's look at the others: who is still at work, what hangs, and which error ends the run."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from kanoclip.runtime.stream.run_state import RunState
from kanoclip.runtime.stream.supervision.sink_watch import SinkWatch

SOURCE_GRACE_S = 2.0
"""How long readers may stay in a device's blocking read after a stop before they are left behind (daemon threads)."""


class Supervisor:
    """Looks after the threads of a run, for the main thread.

    Args:
        run: What they share.
        scorers: The threads that score.
    """

    def __init__(self, run: RunState, scorers: Sequence[threading.Thread]) -> None:
        self._run = run
        self._scorers = scorers
        self._watches = [SinkWatch(sink, lossless=run.waits) for sink in run.sinks]
        self._all_scored = False

    def at_work(self) -> threading.Thread | None:
        """A thread to wait for; None when all is done, and what hangs is left behind."""
        run = self._run
        scorer = next((thread for thread in self._scorers if thread.is_alive()), None)
        if scorer is None and not self._all_scored:
            self._all_scored = True
            run.all_scored()
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
