"""Source threads -> mailbox -> detector threads -> sink threads, with the main thread free for signals and the screen.

Where no frame is dropped, the source's thread resizes each one, right after it was decoded and while its pixels are in
the cache; the detector's threads then do little but infer. A live view's frames are resized when they are scored.

Every way out is the same: a `stop` event is set, mailboxes are closed or aborted so that nobody waits in one, each
thread closes what it owns (a capture or a writer must be released by the thread that uses it), and the first error is
raised again in the main thread.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence

from kanoclip.runtime.detect.preprocess import Prepared
from kanoclip.runtime.errors import FrameError, SinkError
from kanoclip.runtime.sinks.base import ScreenSink, Sink
from kanoclip.runtime.sources.base import Source
from kanoclip.runtime.stream.config import PipelineConfig, Question
from kanoclip.runtime.stream.counters import Tally
from kanoclip.runtime.stream.display import Screen
from kanoclip.runtime.stream.inference_workers import Answer, FrameDetector, Lanes, SourceAlarm
from kanoclip.runtime.stream.progress import Progress, RunSummary
from kanoclip.runtime.stream.sink_workers import SINK_GRACE_S, SinkThreads
from kanoclip.runtime.stream.source_readers import Job, Readers
from kanoclip.runtime.system.bounded_queue import Mailbox, Policy
from kanoclip.runtime.system.signals import stop_on_signals
from kanoclip.runtime.types import BadFrame, Frame, Result

__all__ = ["Pipeline", "PipelineConfig"]

log = logging.getLogger(__name__)

TOLD_S = 0.1
"""How often the run's state is told to whoever calls `Pipeline.run`."""
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
        sinks: Where results go; each gets a thread and a bounded queue of its own.
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
        sinks: Sequence[Sink],
        config: PipelineConfig,
        *,
        screen: ScreenSink | None = None,
        observer: Callable[[Result], None] | None = None,
    ) -> None:
        sources = source if isinstance(source, Sequence) else [source]
        self._config = config
        self._observer = observer
        self._waits = config.policy is Policy.WAIT
        self._shown = screen is not None or any(sink.shows for sink in sinks)
        self._frames: Mailbox[Job] = Mailbox(config.room(len(sources)), config.policy, len(sources))
        self._tally = Tally(sources, recent=not self._waits)
        self._stop = threading.Event()
        self._going = threading.Event()
        self._going.set()
        self._lanes = Lanes(
            detector,
            self._frames,
            config,
            stop=self._stop,
            going=self._going,
            hand_on=self._hand_on,
            refuse=self._refuse,
            fail=self._fail,
            done=self._all_inferred,
        )
        self._readers = Readers(
            sources,
            self._frames,
            self._prepare_early if self._waits else None,
            stop=self._stop,
            passes=lambda: not (self._waits or self._going.is_set()),
            tally=self._tally,
            remember=self._remember,
        )
        room = config.sink_capacity, config.policy, len(sources)
        self._sinks = SinkThreads(sinks, *room, fail=self._fail, left_behind=self._sink_left_behind)
        self._screen = Screen(screen, len(sources), recent=not self._waits)
        self._alarms = [SourceAlarm(self._lanes.question) for _ in sources]
        self._signalled = self._interrupted = False
        self._error: BaseException | None = None
        self._error_lock = threading.Lock()

    def run(self, on_tick: Callable[[Progress], None] | None = None) -> RunSummary:
        """Streams until the sources end, the frame limit is reached, a signal comes or something fails.

        In the main thread, SIGINT and SIGTERM end the run after the frame in work; a second SIGINT raises
        KeyboardInterrupt.

        Args:
            on_tick: Called in this thread about every `TOLD_S` seconds.

        Returns:
            What was done; where there are several sources, with the errors of those that failed.

        Raises:
            SourceError: The only source failed; what it had delivered has been scored and written.
            SinkError: A sink of a run that loses nothing hung, and was left behind.
            Exception: The first error of any other thread; `summary` tells how far the run came.
        """
        self._tally.start()
        try:
            with stop_on_signals(self._signal, lambda: self._signalled):
                self._readers.start()
                self._lanes.start()
                self._sinks.start()
                told_at = -math.inf
                while (worker := self._at_work()) is not None:
                    self._serve_screen(worker)
                    if on_tick is not None and time.monotonic() - told_at >= TOLD_S:
                        told_at = time.monotonic()
                        on_tick(self.progress())
                while self._held_open():
                    self._serve_screen(None)
        except BaseException as error:
            self._fail(error)
            self._lanes.join(SOURCE_GRACE_S)
            self._sinks.join(SOURCE_GRACE_S)
        finally:
            self._readers.join(SOURCE_GRACE_S)
            self._screen.close()
            self._tally.end()
        if self._error is not None:
            raise self._error
        return self.summary()

    def stop(self) -> None:
        """Asks the run to end after the frame in work; may be called from any thread."""
        self._interrupted = True
        self._stop.set()
        self._readers.interrupt()

    def ask(self, question: Question) -> None:
        """Asks something else of frames from the next one on; may be called from any thread.

        An alarm looks back on verdicts over the same class only.
        """
        self._lanes.question = question

    def pause(self) -> None:
        """Lets a live view's frames go by unscored, or a file's wait, from the next one on; from any thread."""
        self._going.clear()

    def resume(self) -> None:
        """Scores again."""
        self._going.set()

    @property
    def stopping(self) -> bool:
        """Whether it was asked to end."""
        return self._interrupted

    @property
    def paused(self) -> bool:
        """Whether frames are let go by unscored."""
        return not self._going.is_set()

    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of the last frame of each source that one was scored of."""
        return [source.size for source in self._tally.sources if source.size is not None]

    def progress(self) -> Progress:
        """The state now."""
        return self._tally.progress(self._frames.drops, self._sinks.dropped(), paused=self.paused)

    def summary(self) -> RunSummary:
        """What was done so far."""
        stats = [*self._sinks.stats, *self._screen.stats]
        return self._tally.summary(self._frames.drops, self._sinks.dropped(), stats, interrupted=self._interrupted)

    def _signal(self) -> None:
        """A signal's handler: only the loop that it interrupts may take locks."""
        self._signalled = True

    def _at_work(self) -> threading.Thread | None:
        """A thread to wait for; None when all is done, and what hangs is left behind."""
        if self._signalled and not self._interrupted:
            self.stop()
        lane = self._lanes.at_work()
        if lane is None:
            unhurried = self._waits and not self._interrupted and self._error is None
            return self._sinks.still_writing(unhurried)
        if self._interrupted:
            self._sinks.leave_stuck()
        return lane

    def _prepare_early(self, frame: Frame) -> tuple[Frame, Prepared]:
        """Prepares a frame where none will be dropped; its full image goes no further if nobody shows it."""
        prepared = self._lanes.prepare(frame)
        if not self._shown:
            # Its memory, still in the cache, is there for the next one.
            frame = frame.shrunk(prepared.image, (prepared.height, prepared.width))
        return frame, prepared

    def _refuse(self, source: int, error: FrameError) -> None:
        """A frame that does not suit ends its source, and the run if there are no others."""
        if len(self._alarms) == 1:
            raise error
        self._readers.give_up(source, error)

    def _all_inferred(self) -> None:
        """The last lane has ended: nobody reads on, and the sinks may finish."""
        self._stop.set()
        self._readers.interrupt()
        self._frames.abort()  # wakes the sources' threads
        self._sinks.close()

    def _hand_on(self, answer: Answer) -> None:
        """Counts a result and gives it to observer, screen and sinks."""
        job, question, result = answer
        source = job.source
        if isinstance(result, BadFrame):
            self._tally.sources[source].bad_seen += 1
        else:
            frame, detection = result
            alarm = self._alarms[source].update(question, bool(detection.is_anomalous))
            detection = detection.with_alarm(alarm)
            self._tally.count(source, frame, detection, job.capture_cpu_ms)
            result = (frame, detection)
        if self._observer is not None:
            self._observer(result)
        self._screen.put(result, source)
        self._sinks.put(result, source)

    def _serve_screen(self, worker: threading.Thread | None) -> None:
        if not self._screen.serve(worker):
            self.stop()

    def _held_open(self) -> bool:
        """Whether the screen stays although all is done."""
        if self._signalled:
            self._interrupted = True
        return self._config.hold_screen and self._screen.there and not self._interrupted and self._error is None

    def _sink_left_behind(self, name: str) -> None:
        """Where nothing may be lost that is a failure; a camera's run ends as it was asked to."""
        words = f"{name}: did not finish within {SINK_GRACE_S:g} s and was left behind; its output is incomplete"
        if self._waits:
            self._remember(SinkError(words))
        else:
            log.warning("%s", words)

    def _remember(self, error: BaseException) -> None:
        """Keeps the first error for the main thread."""
        with self._error_lock:
            if self._error is None:
                self._error = error

    def _fail(self, error: BaseException) -> None:
        """Keeps the error and stops every thread at once."""
        self._remember(error)
        self._stop.set()
        self._readers.interrupt()
        self._frames.abort()
        self._sinks.abort()
        self._lanes.abort()  # after the queues: whoever hands a result on may have been waiting for room in one
