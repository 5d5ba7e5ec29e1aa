"""Source thread -> mailbox -> detector threads -> sink threads, with the main thread free for signals and the screen.

Where no frame is dropped, the source's thread resizes each one, right after it was decoded and while its pixels are in
the cache; the detector's threads then do little but infer. A live view's frames are resized when they are judged.

Every way out is the same: a `stop` event is set, mailboxes are closed or aborted so that nobody waits in one, each
thread closes what it owns (a capture or a writer must be released by the thread that uses it), and the first error is
raised again in the main thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from kanoclip.runtime.alarm import EVERY_FRAME, Alarm, AlarmRule
from kanoclip.runtime.in_order import InOrder
from kanoclip.runtime.mailbox import Mailbox, MailboxClosedError, MailboxEmptyError, Policy
from kanoclip.runtime.preprocess import Prepared
from kanoclip.runtime.report import Progress, RunSummary
from kanoclip.runtime.signals import stop_on_signals
from kanoclip.runtime.sinks.base import ScreenSink, Sink
from kanoclip.runtime.sources.base import Source
from kanoclip.runtime.statistics import StageStats
from kanoclip.runtime.tally import Tally
from kanoclip.runtime.types import BadFrame, Detection, Frame, Image

Result = tuple[Frame, Detection] | BadFrame
"""What travels to the sinks."""

TICK_S = 0.03
"""How often the main thread serves screen and status line."""
SOURCE_GRACE_S = 2.0
"""How long a reader may stay in a device's blocking read after a stop before it is left behind (a daemon thread)."""


class FrameDetector(Protocol):
    """The part of `Detector` that the stream needs."""

    def prepare(self, frame: Image, class_name: str | None = None, size: tuple[int, int] | None = None) -> Prepared:
        """Resizes a frame, uint8 [H, W, 3] BGR, of a picture of (height, width) `size`."""
        ...

    def judge(self, frames: Sequence[Prepared], class_name: str | None = None) -> list[Detection]:
        """Judges prepared frames, in their order."""
        ...


class _Job(NamedTuple):
    """A frame on its way to the detector; prepared where the source's thread does that."""

    frame: Frame
    prepared: Prepared | None


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """How frames flow.

    Attributes:
        policy: What a full mailbox does.
        class_name: Class to look for; None for the bundle's default.
        max_frames: Stop after this many judged frames; None for no limit.
        lanes: Threads that judge side by side; the detector must allow it. Results keep their order.
        batch: Most frames that a thread judges at once. It takes what is there and waits for no more.
        sink_capacity: Results that may wait for each sink.
        alarm: When the stream's alarm is raised and cleared.
        hold_screen: Keep the screen open after the last frame until the user closes it.
    """

    policy: Policy
    class_name: str | None = None
    max_frames: int | None = None
    lanes: int = 1
    batch: int = 1
    sink_capacity: int = 4
    alarm: AlarmRule = EVERY_FRAME
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
        observer: Called in a detector's thread with every result, before the sinks; must be quick. Where no sink shows
            pictures, the frame's may be at the model's size.
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
        self._prepares_early = config.policy is Policy.WAIT
        self._shown = screen is not None or any(sink.shows for sink in sinks)
        # One frame is enough for a live view: a second would only age. Elsewhere nobody should have to wait for one.
        capacity = config.lanes * config.batch + 1 if config.policy is Policy.WAIT else config.batch
        self._frames: Mailbox[_Job | BadFrame] = Mailbox(capacity, config.policy)
        self._queues: list[tuple[Sink, Mailbox[Result], StageStats]] = [
            (sink, Mailbox(config.sink_capacity, config.policy), StageStats(sink.name)) for sink in sinks
        ]
        self._screen_queue: Mailbox[Result] = Mailbox(1, Policy.DROP_OLDEST)
        self._screen_stats = StageStats(screen.name) if screen is not None else None
        self._tally = Tally()
        self._alarm = Alarm(config.alarm)
        self._stop = threading.Event()
        self._interrupted = False
        self._error: BaseException | None = None
        self._error_lock = threading.Lock()
        self._taking = threading.Lock()  # who holds it takes the next item and a number with it
        self._taken = 0
        self._frames_taken = 0
        self._results: InOrder[Result] = InOrder(self._hand_on, ahead=2 * config.lanes * config.batch)
        self._lanes_left = config.lanes
        self._lanes_lock = threading.Lock()

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
        self._tally.start()
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
            with stop_on_signals(self.stop, lambda: self._interrupted):
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
            self._tally.end()
        if self._error is not None:
            raise self._error
        return self.summary()

    def stop(self) -> None:
        """Asks the run to end after the frame in work; may be called from any thread or a signal handler's."""
        self._interrupted = True
        self._stop.set()

    def progress(self) -> Progress:
        """The state now."""
        return self._tally.progress(self._frames.dropped, self._sink_drops())

    def summary(self) -> RunSummary:
        """What was done so far."""
        sinks = [stats for _, _, stats in self._queues]
        if self._screen_stats is not None:
            sinks.append(self._screen_stats)
        return self._tally.summary(self._frames.dropped, self._sink_drops(), sinks, interrupted=self._interrupted)

    def _sink_drops(self) -> dict[str, int]:
        return {sink.name: queue.dropped for sink, queue, _ in self._queues if queue.dropped}

    def _read(self) -> None:
        """Source thread: frames into the mailbox, prepared where none will be dropped."""
        try:
            with suppress(MailboxClosedError):
                started = time.thread_time()
                for item in self._source.frames():
                    if self._stop.is_set():
                        break
                    elsewhere = item.capture_cpu_ms if isinstance(item, Frame) else 0.0
                    self._tally.stages["capture"].add_cpu((time.thread_time() - started) * 1e3 + elsewhere)
                    if isinstance(self._frames.put(self._job(item) if isinstance(item, Frame) else item), BadFrame):
                        self._tally.bad_evicted += 1
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
                        self._judge_some(*taken)
        except BaseException as error:
            self._fail(error)
        finally:
            with self._lanes_lock:
                self._lanes_left -= 1
                last = not self._lanes_left
            if last:
                self._stop.set()
                self._frames.abort()  # wakes the source's thread
                for _, queue, _ in self._queues:
                    queue.close()

    def _job(self, frame: Frame) -> _Job:
        """Prepares a frame where none will be dropped; its full picture goes no further if nobody shows it."""
        if not self._prepares_early:
            return _Job(frame, None)
        prepared = self._prepare(frame)
        if not self._shown:
            # Its memory, still in the cache, is there for the next one.
            frame = replace(frame, image=prepared.image, full_size=(prepared.height, prepared.width))
        return _Job(frame, prepared)

    def _prepare(self, frame: Frame) -> Prepared:
        return self._detector.prepare(frame.image, self._config.class_name, frame.full_size)

    def _take(self) -> tuple[int, list[_Job | BadFrame]] | None:
        """The next items and the number of the first; None once there are frames enough."""
        with self._taking:
            most = self._config.batch
            if self._config.max_frames is not None:
                most = min(most, self._config.max_frames - self._frames_taken)
            if not most:
                return None
            items = self._frames.get_some(most, timeout=0.1)
            number = self._taken
            self._taken += len(items)
            self._frames_taken += sum(isinstance(item, _Job) for item in items)
            return number, items

    def _judge_some(self, number: int, items: Sequence[_Job | BadFrame]) -> None:
        """Judges frames beside the other lanes; what comes of it is handed on after all that came before."""
        jobs = [item for item in items if isinstance(item, _Job)]
        prepared = [job.prepared or self._prepare(job.frame) for job in jobs]
        detections = iter(self._detector.judge(prepared, self._config.class_name) if prepared else ())
        for offset, item in enumerate(items):
            self._results.put(number + offset, (item.frame, next(detections)) if isinstance(item, _Job) else item)

    def _hand_on(self, result: Result) -> None:
        """Counts a result and gives it to observer, screen and sinks."""
        if isinstance(result, BadFrame):
            self._tally.bad_seen += 1
        else:
            frame, detection = result
            detection = replace(detection, alarm=self._alarm.update(bool(detection.is_anomalous)))
            self._tally.count(frame, detection)
            result = (frame, detection)
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
        self._frames.abort()
        for _, queue, _ in self._queues:
            queue.abort()
        self._results.abort()  # after the queues': whoever hands a result on may have been waiting for room in one


def _deliver(sink: Sink, result: Result, stats: StageStats) -> None:
    """Gives a result to a sink and measures what it cost."""
    if isinstance(result, BadFrame):
        sink.skip(result)
        return
    started, started_cpu = time.perf_counter(), time.thread_time()
    sink.write(*result)
    stats.add((time.perf_counter() - started) * 1e3)
    stats.add_cpu((time.thread_time() - started_cpu) * 1e3)
