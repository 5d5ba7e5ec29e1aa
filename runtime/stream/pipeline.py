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
from contextlib import AbstractContextManager, suppress

from kanoclip.runtime.errors import FrameError
from kanoclip.runtime.sinks.base import ScreenSink, Sink, SinkFactory
from kanoclip.runtime.sources.base import Source
from kanoclip.runtime.stream.config import Criteria, PipelineConfig
from kanoclip.runtime.stream.counters import SourceTally
from kanoclip.runtime.stream.inference_worker import FrameTaker, InferenceWorker
from kanoclip.runtime.stream.progress import Progress, RunSummary
from kanoclip.runtime.stream.run_state import FrameDetector, FrameLearner, Latest, RunState
from kanoclip.runtime.stream.sink_worker import SinkWorker, deliver
from kanoclip.runtime.stream.source_worker import SourceWorker
from kanoclip.runtime.stream.stats import StageStats
from kanoclip.runtime.system.bounded_queue import Mailbox, MailboxEmptyError, Policy
from kanoclip.runtime.system.signals import stop_on_signals
from kanoclip.runtime.types import Result

__all__ = ["Pipeline", "PipelineConfig"]

TICK_S = 0.03
"""How often the main thread serves screen and status line, and looks after the sinks."""
REPORT_S = 0.1
"""How often the run's state is reported to whoever calls `Pipeline.run`."""
SOURCE_GRACE_S = 2.0
"""How long readers may stay in a device's blocking read after a stop before they are left behind (daemon threads)."""


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
        self._stats = {sink.name: StageStats(sink.name, recent=recent) for sink in named}
        self._sinks = [
            SinkWorker(sink, Mailbox(config.sink_capacity, config.policy, len(sources)), self._stats[sink.name])
            for sink in sinks
        ]
        self._screen = screen
        self._run = RunState(sources, detector, self._sinks, config, screen=screen is not None, observer=observer)
        taker = FrameTaker(self._run)
        self._readers = [SourceWorker(self._run, number) for number in range(len(sources))]
        self._scorers = [InferenceWorker(self._run, taker, number) for number in range(config.workers)]
        self._signalled = self._interrupted = self._all_scored = False

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
            Exception: The first error of any other thread; `summary` reports how far the run came.
        """
        run = self._run
        run.tally.start()
        try:
            with stop_on_signals(self._signal, lambda: self._signalled):
                for sink in self._sinks:
                    sink.start()
                for sink in self._sinks:
                    sink.wait_until_open()
                for thread in (*self._readers, *self._scorers):
                    thread.start()
                reported_at = -math.inf
                while (worker := self._at_work()) is not None:
                    self._tick(worker)
                    if on_tick is not None and time.monotonic() - reported_at >= REPORT_S:
                        reported_at = time.monotonic()
                        on_tick(self.progress())
                while self._held_open():
                    self._tick(None)
        except BaseException as error:
            run.fail(error)
            _join(self._scorers)
            _join(self._sinks)
        finally:
            _join(self._readers)
            if self._screen is not None:
                self._screen.close()
            run.tally.end()
        if run.error is not None:
            raise run.error
        return self.summary()

    def stop(self) -> None:
        """Ends the run after the frame in work; may be called from any thread."""
        self._interrupted = True
        self._run.stop()

    def changing(self) -> AbstractContextManager[None]:
        """Within it, criteria and what the detector decides by change together; no frame gets a mixture of both.

        Frames that are being scored are scored once more, and no further ones meanwhile.
        """
        return self._run.changing()

    def apply(self, criteria: Criteria) -> None:
        """Scores frames by other criteria from the next one on; may be called from any thread.

        An alarm takes only verdicts on the same class into account.
        """
        with self._run.changing():
            self._run.criteria = criteria

    def learn_by(self, learner: FrameLearner) -> None:
        """Gives it every frame after it was scored; to be called before the run."""
        self._run.learner = learner

    def latest(self, source: str | None = None) -> Latest:
        """The last scored frame of a source; None for that of all of them.

        Raises:
            FrameError: There is no such source, or no frame of it has been scored.
        """
        names = [one.name for one in self._run.sources]
        if source is not None and source not in names:
            raise FrameError(f"unknown source '{source}': this stream has {', '.join(names)}")
        wanted = [one for name, one in zip(names, self._run.latest, strict=True) if source in (None, name)]
        scored = [one for one in wanted if one is not None]
        if not scored:
            raise FrameError(f"{source or 'the stream'}: no frame has been scored yet: wait for the first one")
        return max(scored, key=lambda one: one.captured_at)

    def add_source(self, source: Source) -> None:
        """Takes a further source in while the run goes on, and closes it in the end; see `StreamControl.add_source`."""
        reader = SourceWorker(self._run, self._run.add(source))
        self._readers.append(reader)
        reader.start()
        if self._run.stopped.is_set():
            source.interrupt()

    def remove_source(self, number: int) -> None:
        """Reads no more of a source; what was read is still scored."""
        self._run.tally.sources[number].removed = True
        self._run.sources[number].interrupt()

    @property
    def members(self) -> list[tuple[Source, SourceTally]]:
        """All sources by their numbers, with their counts; those that were removed too."""
        return list(zip(self._run.sources, self._run.tally.sources, strict=False))

    @property
    def closed_to_sources(self) -> str | None:
        """Why no source may join; None where one may."""
        return "files lose nothing, live sources do" if self._run.waits else self._run.config.closed_to_sources

    def pause(self) -> None:
        """Lets a live view's frames go by unscored, or a file's wait, from the next one on; from any thread."""
        self._run.going.clear()

    def resume(self) -> None:
        """Scores again."""
        self._run.going.set()

    def reopen_sinks(self) -> None:
        """Lets the sinks open their files again, which may have been moved away; from any thread."""
        for sink in self._sinks:
            sink.reopen()

    @property
    def stopping(self) -> bool:
        """Whether a stop was requested."""
        return self._interrupted

    @property
    def paused(self) -> bool:
        """Whether frames are let go by unscored."""
        return not self._run.going.is_set()

    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of the last scored frame of each source that has one."""
        return [source.size for source in self._run.tally.sources if source.size is not None]

    def progress(self) -> Progress:
        """The state now."""
        return self._run.tally.progress(self._run.frames.drops, self._dropped(), paused=self.paused)

    def summary(self) -> RunSummary:
        """What was done so far."""
        drops, stats = self._run.frames.drops, list(self._stats.values())
        return self._run.tally.summary(drops, self._dropped(), stats, interrupted=self._interrupted)

    def _dropped(self) -> dict[str, int]:
        """Results lost so far, by the name of each sink that lost any."""
        counts = dict.fromkeys((sink.sink_name for sink in self._sinks), 0)
        for sink in self._sinks:
            counts[sink.sink_name] += sink.dropped
        return {name: count for name, count in counts.items() if count}

    def _signal(self) -> None:
        """A signal's handler: only the loop that it interrupts may take locks."""
        self._signalled = True

    def _at_work(self) -> threading.Thread | None:
        """A thread to wait for; None when all is done, and what hangs is left behind."""
        run = self._run
        if self._signalled and not self._interrupted:
            self.stop()
        scorer = next((thread for thread in self._scorers if thread.is_alive()), None)
        if scorer is None and not self._all_scored:
            self._all_scored = True
            run.all_scored()
        # Where nothing may be lost a sink has all the time it takes.
        hurry = self._interrupted or (scorer is None and not (run.waits and run.error is None))
        writing = []
        for sink in self._sinks:
            sink.watch(hurry=hurry)
            if sink.is_alive() and not sink.left:
                writing.append(sink)
            elif sink.error is not None and run.error is None:
                run.remember(sink.error) if sink.left else run.fail(sink.error)
        return scorer or next(iter(writing), None)

    def _tick(self, worker: threading.Thread | None) -> None:
        """Shows the newest result; without a screen, waits a tick or until the worker ends."""
        if self._screen is None or self._run.newest is None:
            if worker is not None:
                worker.join(TICK_S)
            return
        with suppress(MailboxEmptyError):
            deliver(self._screen, self._run.newest.get(timeout=TICK_S), self._stats[self._screen.name])
        if not self._screen.poll():
            self.stop()

    def _held_open(self) -> bool:
        """Whether the screen stays although all is done."""
        if self._signalled:
            self._interrupted = True
        wanted = self._run.config.hold_screen and self._screen is not None
        return wanted and not self._interrupted and self._run.error is None


def _join(threads: Sequence[threading.Thread]) -> None:
    """Waits for threads that were started, `SOURCE_GRACE_S` in all; one in a blocking call is left behind."""
    deadline = time.monotonic() + SOURCE_GRACE_S
    for thread in threads:
        if thread.ident is not None:
            thread.join(max(0.0, deadline - time.monotonic()))
