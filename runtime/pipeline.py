"""Source thread -> mailbox -> detector thread -> sink threads, with the main thread free for signals and the screen.

Every way out is the same: a `stop` event is set, mailboxes are closed or aborted so that nobody waits in one, each
thread closes what it owns (a capture or a writer must be released by the thread that uses it), and the first error is
raised again in the main thread.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

from kanoclip.runtime.mailbox import Mailbox, MailboxClosedError, MailboxEmptyError, Policy
from kanoclip.runtime.report import Progress, RunSummary
from kanoclip.runtime.sinks.base import ScreenSink, Sink
from kanoclip.runtime.sources.base import Source
from kanoclip.runtime.statistics import SlidingWindow, StageStats
from kanoclip.runtime.types import BadFrame, Detection, Frame, Image

Result = tuple[Frame, Detection] | BadFrame
"""What travels to the sinks."""

TICK_S = 0.03
"""How often the main thread serves screen and status line."""
SOURCE_GRACE_S = 2.0
"""How long a reader may stay in a device's blocking read after a stop before it is left behind (a daemon thread)."""


class FrameDetector(Protocol):
    """The part of `Detector` that the stream needs."""

    def __call__(self, frame: Image, class_name: str | None = None) -> Detection:
        """Judges one frame, uint8 [H, W, 3] BGR."""
        ...


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """How frames flow.

    Attributes:
        policy: What a full mailbox does.
        class_name: Class to look for; None for the bundle's default.
        max_frames: Stop after this many judged frames; None for no limit.
        lanes: Frames that are judged at a time, by a thread each; the detector must allow it. Results keep their order.
        capacity: Frames that may wait for the detector. One is right for a live view: a second would only age.
        sink_capacity: Results that may wait for each sink.
        hold_screen: Keep the screen open after the last frame until the user closes it.
    """

    policy: Policy
    class_name: str | None = None
    max_frames: int | None = None
    lanes: int = 1
    capacity: int = 1
    sink_capacity: int = 4
    hold_screen: bool = False


class Pipeline:
    """One run of a source through a detector into sinks.

    The pipeline takes over source and sinks: it closes each of them, whatever happens. The detector stays the
    caller's.

    Args:
        source: Where frames come from.
        detector: What judges them.
        sinks: Where results go; each gets a thread and a bounded queue of its own.
        config: How frames flow.
        screen: A sink for the main thread. It shows the newest result only and never holds the stream up, whatever
            the policy.
        observer: Called in the detector's thread with every result, before the sinks; must be quick.
    """

    def __init__(
        self,
        source: Source,
        detector: FrameDetector,
        sinks: Sequence[Sink],
        config: PipelineConfig,
        *,
        screen: ScreenSink | None = None,
        observer: Callable[[Result], None] | None = None,
    ) -> None:
        self._source = source
        self._detector = detector
        self._config = config
        self._screen = screen
        self._observer = observer
        self._frames: Mailbox[Frame | BadFrame] = Mailbox(config.capacity, config.policy)
        self._queues: list[tuple[Sink, Mailbox[Result], StageStats]] = [
            (sink, Mailbox(config.sink_capacity, config.policy), StageStats(sink.name)) for sink in sinks
        ]
        self._screen_queue: Mailbox[Result] = Mailbox(1, Policy.DROP_OLDEST)
        self._screen_stats = StageStats(screen.name) if screen is not None else None
        self._stages = {name: StageStats(name) for name in ("capture", "resize", "inference", "decide")}
        self._window = SlidingWindow()
        self._stop = threading.Event()
        self._interrupted = False
        self._error: BaseException | None = None
        self._error_lock = threading.Lock()
        self._taking = threading.Lock()  # who holds it takes the next item and a number with it
        self._taken = 0
        self._frames_taken = 0
        self._turn = threading.Condition()  # results are handed on by number
        self._handed_on = 0
        self._failed = False
        self._lanes_left = config.lanes
        self._judged = 0
        self._anomalous = 0
        self._bad_seen = 0  # written in turn by the detector's threads
        self._bad_evicted = 0  # written by the source's thread
        self._last_score: float | None = None
        self._started = 0.0
        self._ended: float | None = None

    def run(self, on_tick: Callable[[Progress], None] | None = None) -> RunSummary:
        """Streams until the source ends, the frame limit is reached, a signal comes or something fails.

        In the main thread, SIGINT and SIGTERM end the run after the frame in work; a second SIGINT raises
        KeyboardInterrupt.

        Args:
            on_tick: Called in this thread about every `TICK_S` seconds.

        Returns:
            What was done.

        Raises:
            SourceError: The source failed; what it had delivered has been judged and written.
            Exception: The first error of any other thread; `summary` tells how far the run came.
        """
        self._started = time.monotonic()
        reader = threading.Thread(target=self._read, name="kanoclip-source", daemon=True)
        workers = [
            threading.Thread(target=self._judge, name=f"kanoclip-detector-{lane}", daemon=True)
            for lane in range(self._config.lanes)
        ]
        workers += [
            threading.Thread(target=self._drain, args=queue, name=f"kanoclip-{queue[0].name}", daemon=True)
            for queue in self._queues
        ]
        try:
            with self._signals():
                for thread in [reader, *workers]:
                    thread.start()
                while alive := [thread for thread in workers if thread.is_alive()]:
                    self._serve_screen(alive[0])
                    if on_tick is not None:
                        on_tick(self.progress())
                while self._held_open():
                    self._serve_screen(None)
        except BaseException as error:
            self._fail(error)
            for thread in workers:
                if thread.ident is not None:
                    thread.join(SOURCE_GRACE_S)
        finally:
            if reader.ident is not None:
                reader.join(SOURCE_GRACE_S)
            if self._screen is not None:
                self._screen.close()
            self._ended = time.monotonic()
        if self._error is not None:
            raise self._error
        return self.summary()

    def stop(self) -> None:
        """Asks the run to end after the frame in work; may be called from any thread or a signal handler's."""
        self._interrupted = True
        self._stop.set()

    def progress(self) -> Progress:
        """The state now."""
        fps, p50, p95 = self._window.figures()
        return Progress(
            frames=self._judged,
            anomalous=self._anomalous,
            skipped=self._bad_seen + self._bad_evicted,
            dropped=self._frames.dropped - self._bad_evicted,
            sink_dropped=self._sink_drops(),
            fps=fps,
            latency_p50=p50,
            latency_p95=p95,
            last_score=self._last_score,
        )

    def summary(self) -> RunSummary:
        """What was done so far."""
        sinks = [stats.summary() for _, _, stats in self._queues]
        if self._screen_stats is not None:
            sinks.append(self._screen_stats.summary())
        return RunSummary(
            frames=self._judged,
            anomalous=self._anomalous,
            skipped=self._bad_seen + self._bad_evicted,
            dropped=self._frames.dropped - self._bad_evicted,
            sink_dropped=self._sink_drops(),
            wall_s=(self._ended or time.monotonic()) - self._started,
            stages=(*(stage.summary() for stage in self._stages.values()), *sinks),
            interrupted=self._interrupted,
        )

    def _sink_drops(self) -> dict[str, int]:
        return {sink.name: queue.dropped for sink, queue, _ in self._queues if queue.dropped}

    def _read(self) -> None:
        """Source thread: frames into the mailbox."""
        try:
            with suppress(MailboxClosedError):
                started = time.thread_time()
                for item in self._source.frames():
                    if self._stop.is_set():
                        break
                    self._stages["capture"].add_cpu((time.thread_time() - started) * 1e3)
                    if isinstance(self._frames.put(item), BadFrame):
                        self._bad_evicted += 1
                    started = time.thread_time()
        except BaseException as error:
            # What was read before is sound: let it be judged and written, then report. After a stop nobody reads on,
            # and a device complaining about that is no failure.
            if not self._stop.is_set():
                self._remember(error)
        finally:
            self._frames.close()
            try:
                self._source.close()
            except BaseException as error:
                self._remember(error)

    def _judge(self) -> None:
        """A detector thread: mailbox into the sinks' queues."""
        try:
            with suppress(MailboxClosedError):
                # A stop must be noticed although a camera may deliver nothing for long.
                while not self._stop.is_set():
                    with suppress(MailboxEmptyError):
                        taken = self._take()
                        if taken is None:
                            break
                        self._judge_one(*taken)
        except BaseException as error:
            self._fail(error)
        finally:
            with self._turn:
                self._lanes_left -= 1
                last = not self._lanes_left
            if last:
                self._stop.set()
                self._frames.abort()  # wakes the source's thread
                for _, queue, _ in self._queues:
                    queue.close()

    def _take(self) -> tuple[int, Frame | BadFrame] | None:
        """The next item and its number; None once there are frames enough."""
        with self._taking:
            if self._frames_taken == self._config.max_frames:
                return None
            item = self._frames.get(timeout=0.1)
            number = self._taken
            self._taken += 1
            self._frames_taken += isinstance(item, Frame)
            return number, item

    def _judge_one(self, number: int, item: Frame | BadFrame) -> None:
        """Judges a frame beside the other lanes, and hands the result on after all that came before it."""
        detection = self._detector(item.image, self._config.class_name) if isinstance(item, Frame) else None
        with self._turn:
            self._turn.wait_for(lambda: self._handed_on == number or self._failed)
            if self._failed:
                return
            # The lock is held meanwhile: the others have nothing to do here before their turn.
            self._hand_on(item, detection)
            self._handed_on += 1
            self._turn.notify_all()

    def _hand_on(self, item: Frame | BadFrame, detection: Detection | None) -> None:
        """Counts a result and gives it to observer, screen and sinks."""
        result: Result
        if isinstance(item, BadFrame) or detection is None:
            assert isinstance(item, BadFrame)
            self._bad_seen += 1
            result = item
        else:
            self._judged += 1
            self._anomalous += detection.is_anomalous
            self._last_score = detection.score
            self._stages["capture"].add(item.capture_ms)
            self._stages["resize"].add(detection.timings.resize)
            self._stages["inference"].add(detection.timings.inference)
            self._stages["decide"].add(detection.timings.decide)
            self._stages["resize"].add_cpu(detection.timings.resize_cpu)
            self._stages["decide"].add_cpu(detection.timings.decide_cpu)
            # The wall clock may be set back while a stream runs.
            self._window.add(time.monotonic(), max(0.0, (time.time() - item.captured_at) * 1e3))
            result = (item, detection)
        if self._observer is not None:
            self._observer(result)
        if self._screen is not None:
            self._screen_queue.put(result)
        for _, queue, _ in self._queues:
            queue.put(result)

    def _drain(self, sink: Sink, queue: Mailbox[Result], stats: StageStats) -> None:
        """Sink thread: one sink's queue into the sink."""
        try:
            try:
                with suppress(MailboxClosedError):
                    while True:
                        _deliver(sink, queue.get(), stats)
            finally:
                sink.close()
        except BaseException as error:
            self._fail(error)

    def _serve_screen(self, worker: threading.Thread | None) -> None:
        """Shows the newest result; without a screen, waits a tick or until the worker ends."""
        if self._screen is None or self._screen_stats is None:
            if worker is not None:
                worker.join(TICK_S)
            return
        with suppress(MailboxEmptyError, MailboxClosedError):
            _deliver(self._screen, self._screen_queue.get(timeout=TICK_S), self._screen_stats)
        if not self._screen.poll():
            self.stop()

    def _held_open(self) -> bool:
        """Whether the screen stays although all is done."""
        wanted = self._config.hold_screen and self._screen is not None
        return wanted and not self._interrupted and self._error is None

    def _remember(self, error: BaseException) -> None:
        """Keeps the first error for the main thread."""
        with self._error_lock:
            if self._error is None:
                self._error = error

    def _fail(self, error: BaseException) -> None:
        """Keeps the error and stops every thread at once."""
        self._remember(error)
        self._stop.set()
        self._failed = True
        self._frames.abort()
        for _, queue, _ in self._queues:
            queue.abort()
        with self._turn:  # after the abort: whoever holds it may have been waiting for room in a queue
            self._turn.notify_all()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Turns SIGINT and SIGTERM into a clean stop while the run lasts; does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, frame: FrameType | None) -> None:
            if number == signal.SIGINT and self._interrupted:
                raise KeyboardInterrupt
            self.stop()

        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                # None stands for a handler that was not installed from Python; it cannot be put back.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _deliver(sink: Sink, result: Result, stats: StageStats) -> None:
    """Gives a result to a sink and measures what it cost."""
    if isinstance(result, BadFrame):
        sink.skip(result)
        return
    started, started_cpu = time.perf_counter(), time.thread_time()
    sink.write(*result)
    stats.add((time.perf_counter() - started) * 1e3)
    stats.add_cpu((time.thread_time() - started_cpu) * 1e3)
