"""Source threads -> mailbox -> inference threads -> sink threads, with the main thread free for signals and the screen.

Every way out is the same: `RunState.stop` is called, mailboxes are closed or aborted so that nobody waits in one, each
thread closes what it owns (a capture or a writer must be released by the thread that uses it), and the first error is
raised again in the main thread.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from kanoclip.runtime.sinks.base import ScreenSink, Sink, SinkFactory
from kanoclip.runtime.sources.base import Source
from kanoclip.runtime.stream.config import FrameDetector, PipelineConfig
from kanoclip.runtime.stream.control.live_run import LiveRun
from kanoclip.runtime.stream.control.progress import Progress, RunSummary
from kanoclip.runtime.stream.counters import StageStats
from kanoclip.runtime.stream.inference_worker import FrameTaker, InferenceWorker
from kanoclip.runtime.stream.run_state import RunState
from kanoclip.runtime.stream.sink_worker import SinkWorker, deliver
from kanoclip.runtime.stream.source_worker import SourceWorker
from kanoclip.runtime.stream.supervision.main_thread import Supervisor, join
from kanoclip.runtime.system.queues import Mailbox, MailboxEmptyError, Policy
from kanoclip.runtime.system.signals import stop_on_signals
from kanoclip.runtime.types import Result

__all__ = ["Pipeline", "PipelineConfig"]

TICK_S = 0.03
"""How often the main thread serves screen and status line, and looks after the sinks."""
REPORT_S = 0.1
"""How often the run's state is reported to whoever calls `Pipeline.run`."""


class Pipeline:
    """One run of one or more sources through a detector into sinks.

    The pipeline takes over sources and sinks: it closes each of them, whatever happens. The detector stays the
    caller's. Several sources share it: frames are taken from them in turns, each keeps its own order, drops and alarm,
    and one that ends or fails leaves the others to go on.

    Args:
        source: Where frames come from; several with names that differ.
        detector: What scores them.
        sinks: Where results go; each gets a thread and a bounded queue of its own. One that comes as a factory may fail
            while the run goes on; any other's error ends the run.
        config: How frames flow.
        screen: A sink for the main thread. It shows the newest result of each source only and never holds the stream
            up, whatever the policy.
        observer: Called in a detector's thread with every result, before the sinks; must be quick. Where no sink shows
            images, the frame's may be at the model's size.

    Attributes:
        live: Reads and changes the run while it goes on.
    """

    def __init__(
        self,
        source: Source | Sequence[Source],
        detector: FrameDetector,
        sinks: Sequence[Sink | SinkFactory],
        config: PipelineConfig,
        *,
        screen: ScreenSink | None = None,
        observer: Callable[[Result], None] | None = None,
    ) -> None:
        sources = source if isinstance(source, Sequence) else [source]
        recent = config.policy is Policy.DROP_OLDEST
        named = [*sinks, *([] if screen is None else [screen])]
        self._costs = {sink.name: StageStats(sink.name, recent=recent) for sink in named}
        self._sinks = [
            SinkWorker(sink, Mailbox(config.sink_capacity, config.policy, len(sources)), self._costs[sink.name])
            for sink in sinks
        ]
        self._screen = screen
        self._run = run = RunState(sources, detector, self._sinks, config, screen=screen is not None, observer=observer)
        taker = FrameTaker(run)
        self._readers = [SourceWorker(run, number) for number in range(len(sources))]
        self._scorers = [InferenceWorker(run, taker, number) for number in range(config.workers)]
        self.live = LiveRun(run, self._readers, list(self._costs.values()))
        self._signalled = False

    def run(self, on_tick: Callable[[Progress], None] | None = None) -> RunSummary:
        """Streams until the sources end, the frame limit is reached, a signal comes or something fails.

        In the main thread, SIGINT and SIGTERM end the run after the frame in work; a second SIGINT raises
        KeyboardInterrupt.

        Args:
            on_tick: Called in this thread about every `REPORT_S` seconds.

        Returns:
            What was done; where there are several sources, with the errors of those that failed.

        Raises:
            SourceError: The only source failed; what it had delivered has been scored and written.
            SinkError: A sink of a run that loses nothing hung, and was left behind.
            Exception: The first error of any other thread; `LiveRun.summary` reports how far the run came.
        """
        run, supervisor = self._run, Supervisor(self._run, self._scorers)
        run.tally.started = time.monotonic()
        reported_at = -math.inf
        try:
            with stop_on_signals(self._signal, lambda: self._signalled):
                for sink in self._sinks:
                    sink.start()
                for sink in self._sinks:
                    sink.opened.wait(sink.factory.patience_s)
                for thread in (*self._readers, *self._scorers):
                    thread.start()
                while (busy := supervisor.at_work()) is not None:
                    self._tick(busy)
                    if on_tick is not None and time.monotonic() - reported_at >= REPORT_S:
                        reported_at = time.monotonic()
                        on_tick(self.live.progress())
                while self._held_open():
                    self._tick(None)
        except BaseException as error:
            run.fail(error)
            join(self._scorers)
            join(self._sinks)
        finally:
            join(self._readers)
            if self._screen is not None:
                self._screen.close()
            run.tally.ended = time.monotonic()
        if run.error is not None:
            raise run.error
        return self.live.summary()

    def stop(self) -> None:
        """Ends the run after the frame in work; may be called from any thread."""
        self._run.interrupted = True
        self._run.stop()

    @property
    def stopping(self) -> bool:
        """Whether a stop was requested."""
        return self._run.interrupted

    def _signal(self) -> None:
        """A signal's handler: only the loop that it interrupts may take locks."""
        self._signalled = True

    def _tick(self, busy: threading.Thread | None) -> None:
        """Shows the newest result; without a screen, waits a tick or until the thread ends."""
        if self._signalled and not self.stopping:
            self.stop()
        if self._screen is None or self._run.newest is None:
            if busy is not None:
                busy.join(TICK_S)
            return
        with suppress(MailboxEmptyError):
            deliver(self._screen, self._run.newest.get(timeout=TICK_S), self._costs[self._screen.name])
        if not self._screen.poll():
            self.stop()

    def _held_open(self) -> bool:
        """Whether the screen stays although all is done."""
        self._run.interrupted |= self._signalled
        wanted = self._run.config.hold_screen and self._screen is not None
        return wanted and not self._run.interrupted and self._run.error is None
