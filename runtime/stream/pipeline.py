"""Source threads -> mailbox -> inference threads -> sink threads, with the main thread free for signals and the screen.

Every way out is the same: `RunState.stop` is called, mailboxes are closed or aborted so that nobody waits in one, each
thread closes what it owns (a capture or a writer must be released by the thread that uses it), and the first error is
raised again in the main thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from kanoclip.runtime.sinks.base import ScreenSink, Sink, SinkFactory
from kanoclip.runtime.sources.base import Source
from kanoclip.runtime.stream.config import FrameDetector, PipelineConfig
from kanoclip.runtime.stream.control.live_run import LiveRun
from kanoclip.runtime.stream.control.progress import Progress, RunSummary
from kanoclip.runtime.stream.counters import StageStats
from kanoclip.runtime.stream.inference_worker import FrameTaker, InferenceWorker
from kanoclip.runtime.stream.run_state import RunState
from kanoclip.runtime.stream.sink_worker import ScreenSlot, SinkWorker
from kanoclip.runtime.stream.source_worker import SourceWorker
from kanoclip.runtime.stream.supervision.main_thread import MainThread, join
from kanoclip.runtime.system.queues import Mailbox, Policy
from kanoclip.runtime.types import Result


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
        costs = {
            sink.name: StageStats(sink.name, recent=config.policy is Policy.DROP_OLDEST)
            for sink in (*sinks, *([] if screen is None else [screen]))
        }
        self._sinks = [
            SinkWorker(sink, Mailbox(config.sink_capacity, config.policy, len(sources)), costs[sink.name])
            for sink in sinks
        ]
        self._screen = None if screen is None else ScreenSlot(screen, len(sources), costs[screen.name])
        self._run = run = RunState(sources, detector, self._sinks, self._screen, config, observer)
        taker = FrameTaker(run)
        self._readers = [SourceWorker(run, number) for number in range(len(sources))]
        self._scorers = [InferenceWorker(run, taker, number) for number in range(config.workers)]
        self.live = LiveRun(run, self._readers, list(costs.values()))

    def run(self, on_tick: Callable[[Progress], None] | None = None) -> RunSummary:
        """Streams until the sources end, the frame limit is reached, a signal comes or something fails.

        In the main thread, SIGINT and SIGTERM end the run after the frame in work; a second SIGINT raises
        KeyboardInterrupt.

        Args:
            on_tick: Called in this thread about ten times a second.

        Returns:
            What was done; where there are several sources, with the errors of those that failed.

        Raises:
            SourceError: The only source failed; what it had delivered has been scored and written.
            SinkError: A sink of a run that loses nothing hung, and was left behind.
            Exception: The first error of any other thread; `LiveRun.summary` reports how far the run came.
        """
        run, main = self._run, MainThread(self._run, self._scorers)
        run.tally.started = time.monotonic()
        try:
            with main.signals():
                for sink in self._sinks:
                    sink.start()
                for sink in self._sinks:
                    sink.opened.wait(sink.factory.patience_s)
                for thread in (*self._readers, *self._scorers):
                    thread.start()
                main.look_after(None if on_tick is None else lambda: on_tick(self.live.progress()))
        except BaseException as error:
            run.fail(error)
            join(self._scorers)
            join(self._sinks)
        finally:
            join(self._readers)
            if self._screen is not None:
                self._screen.sink.close()
            run.tally.ended = time.monotonic()
        if run.error is not None:
            raise run.error
        return self.live.summary()

    def stop(self) -> None:
        """Ends the run after the frame in work; may be called from any thread."""
        self._run.stop(interrupted=True)
