"""What the threads of one run share: queues and counts between them, what frames are scored for, and how it ends."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from kanoclip.runtime.detect.alarm import Alarm
from kanoclip.runtime.detect.preprocess import Prepared
from kanoclip.runtime.errors import KanoclipError, SourceError, one_line
from kanoclip.runtime.sources.base import Source
from kanoclip.runtime.stream.config import Criteria, PipelineConfig
from kanoclip.runtime.stream.counters import Tally
from kanoclip.runtime.stream.sink_worker import SinkWorker
from kanoclip.runtime.system.bounded_queue import Mailbox, Policy
from kanoclip.runtime.system.reorder import InOrder
from kanoclip.runtime.types import BadFrame, Detection, Frame, Image, Result

log = logging.getLogger(__name__)


class FrameDetector(Protocol):
    """The part of `Detector` that a stream needs."""

    def prepare(self, frame: Image, class_name: str | None = None, size: tuple[int, int] | None = None) -> Prepared:
        """Resizes a frame, uint8 [H, W, 3] BGR, of an image of (height, width) `size`."""
        ...

    def infer(self, frames: Sequence[Prepared], class_name: str | None = None) -> list[Detection]:
        """Scores prepared frames, in their order."""
        ...


class FrameLearner(Protocol):
    """What learns from frames while they are scored, such as a `WarmUp`."""

    def look(self, name: str, frame: Prepared, image: Image, class_name: str | None) -> None:
        """Takes a frame that has just been scored; in the thread that scored it, and without an error."""
        ...


class Latest(NamedTuple):
    """The last scored frame of a source.

    Attributes:
        name: The file that it is, or source and number.
        prepared: As it was scored.
        captured_at: Unix time.
    """

    name: str
    prepared: Prepared
    captured_at: float


class Job(NamedTuple):
    """What a source gave, on its way to the detector.

    Attributes:
        source: Number of the source.
        item: The frame.
        prepared: The frame at the model's size, where the source's thread has resized it.
        capture_cpu_ms: Processor time that reading it took.
    """

    source: int
    item: Frame | BadFrame
    prepared: Prepared | None
    capture_cpu_ms: float


class Answer(NamedTuple):
    """A frame's result, with the criteria that it was scored by."""

    job: Job
    criteria: Criteria
    result: Result


class RunState:
    """One run, as its threads see it.

    Args:
        sources: Where frames come from.
        detector: What scores them.
        sinks: Where results go.
        config: How frames flow.
        screen: Whether the newest results are shown by the main thread.
        observer: As `Pipeline` takes it.

    Attributes:
        criteria: What frames are scored for; any thread may replace it within `changing`.
        change: How often criteria and what the detector decides by were changed.
        frames: From the sources to the detector; a compartment for each source.
        results: From the detector to the sinks, in the order in which frames were taken.
        newest: Results for the screen.
        tally: Counts.
        stopped: Ends reading and scoring, after the frames in work.
        going: Cleared during a pause.
        waits: Whether no frame may be dropped.
        shown: Whether somebody needs the full image.
        learner: Gets every scored frame; None for nobody.
        latest: The last scored frame of each source; None before the first.
        error: The first error, which the run ends with.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        detector: FrameDetector,
        sinks: Sequence[SinkWorker],
        config: PipelineConfig,
        *,
        screen: bool,
        observer: Callable[[Result], None] | None,
    ) -> None:
        self.sources, self.detector, self.sinks, self.config = list(sources), detector, sinks, config
        self.criteria = config.criteria
        self.change = 0
        self._changing = threading.RLock()
        self.waits = config.policy is Policy.WAIT
        self.shown = screen or any(sink.shows for sink in sinks)
        self.frames: Mailbox[Job] = Mailbox(config.room(len(sources)), config.policy, len(sources))
        self.results: InOrder[Answer] = InOrder(self._hand_on, ahead=2 * config.workers * config.batch)
        self.newest: Mailbox[Result] | None = Mailbox(1, Policy.DROP_OLDEST, len(sources)) if screen else None
        self.tally = Tally(sources, recent=not self.waits)
        self.stopped, self.going = threading.Event(), threading.Event()
        self.going.set()
        self.error: BaseException | None = None
        self.learner: FrameLearner | None = None
        self.latest: list[Latest | None] = [None for _ in sources]
        self._observer = observer
        self._alarms = [Alarm(self.criteria.alarm, self.criteria.class_name) for _ in sources]
        self._lock = threading.Lock()

    def add(self, source: Source) -> int:
        """Takes one more source in, which `StreamControl` has checked; returns its number.

        Raises:
            SourceError: The run is ending.
        """
        with self._lock:
            if not self.reading():
                raise SourceError(f"{source.name}: the run is ending")
            self.latest.append(None)
            self._alarms.append(Alarm(self.criteria.alarm, self.criteria.class_name))
            self.frames.add_writer()
            for sink in self.sinks:
                sink.add_source()
            self.tally.add(source)
            self.sources.append(source)
            return len(self.sources) - 1

    def reading(self) -> list[int]:
        """Numbers of the sources that may still deliver."""
        return [n for n, one in enumerate(self.tally.sources) if not (one.ended or one.removed)]

    def prepare(self, frame: Frame) -> Prepared:
        """Resizes a frame for the class that is looked for at present.

        Raises:
            FrameError: The frame does not suit.
        """
        return self.detector.prepare(frame.image, self.criteria.class_name, frame.full_size)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Criteria and what the detector decides by change together: no frame gets one of before and one of after."""
        with self._changing:
            self.change += 1  # first: whoever is scoring looks at it afterwards
            yield

    def steady(self) -> tuple[int, Criteria]:
        """The criteria, and the number of the change that they came with; waits for one that is being made."""
        with self._changing:
            return self.change, self.criteria

    def name_of(self, source: int, frame: Frame) -> str:
        """What a person calls a frame of a source: its file, or its number in a stream."""
        return frame.source if self.sources[source].root is not None else f"{frame.source}, frame {frame.index}"

    def stop(self) -> None:
        """Ends reading and scoring, after the frames in work; wakes sources that wait for a camera or a file."""
        self.stopped.set()
        for source in self.sources:
            source.interrupt()

    def all_scored(self) -> None:
        """Nothing is scored any more: nobody reads on, and the sinks may finish."""
        self.stop()
        self.frames.abort()  # wakes the sources' threads
        for sink in self.sinks:
            sink.finish()

    def remember(self, error: BaseException) -> None:
        """Holds the first error for the main thread."""
        with self._lock:
            if self.error is None:
                self.error = error

    def fail(self, error: BaseException) -> None:
        """Holds the error and stops every thread at once."""
        self.remember(error)
        self.stop()
        self.frames.abort()
        for sink in self.sinks:
            sink.abort()
        self.results.abort()  # after the sinks: whoever hands a result on may have been waiting for room in one

    def source_failed(self, number: int, error: BaseException) -> None:
        """One source ends before its end: the run after it where it is alone; of several, the others go on.

        Args:
            number: Which.
            error: Why; of several sources, each one's first error is reported.
        """
        if len(self.sources) == 1:
            self.remember(error)
            return
        with self._lock:
            counts = self.tally.sources[number]
            if counts.error is not None:
                return
            words = one_line(error)
            if not isinstance(error, KanoclipError):
                words = f"{self.sources[number].name}: unexpected {type(error).__name__}: {words}"
            counts.error = words
            others = len(self.reading()) > 1
        log.warning("%s%s", words, "; the other sources go on" if others else "")

    def source_ended(self, number: int) -> None:
        """One source gives nothing more; after the last there is nothing to wait for."""
        with self._lock:
            self.tally.sources[number].ended = True
            last = all(one.ended for one in self.tally.sources)
        if last:
            self.frames.close()

    def _hand_on(self, answer: Answer) -> None:
        """Counts a result and gives it to observer, screen and sinks; called for one result at a time."""
        job, criteria, result = answer
        if isinstance(result, BadFrame):
            self.tally.sources[job.source].bad_seen += 1
        else:
            frame, detection = result
            alarm = self._alarms[job.source]
            alarm.follow(criteria.alarm, criteria.class_name)
            detection = detection.with_alarm(alarm.update(bool(detection.is_anomalous)))
            self.tally.count(job.source, frame, detection, job.capture_cpu_ms)
            if job.prepared is not None:
                self.latest[job.source] = Latest(self.name_of(job.source, frame), job.prepared, frame.captured_at)
            result = (frame, detection)
        if self._observer is not None:
            self._observer(result)
        if self.newest is not None:
            self.newest.put(result, job.source)
        for sink in self.sinks:
            sink.put(result, job.source)
