"""What the threads of one run share: queues and counts between them, what frames are scored for, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from kanoclip.runtime.detect.learning.warm_up import FrameLearner
from kanoclip.runtime.detect.preprocess import Prepared
from kanoclip.runtime.sources.base import Source
from kanoclip.runtime.stream.config import Criteria, FrameDetector, PipelineConfig
from kanoclip.runtime.stream.counters import Tally
from kanoclip.runtime.stream.sink_worker import ScreenSlot, SinkWorker
from kanoclip.runtime.system.queues import InOrder, Mailbox, Policy
from kanoclip.runtime.types import BadFrame, Frame, Result


class Job(NamedTuple):
    """What the source of a number gave, on its way to the detector.

    Attributes:
        prepared: The frame at the model's size, where the source's thread has resized it.
        capture_cpu_ms: Processor time that reading it took.
    """

    source: int
    item: Frame | BadFrame
    prepared: Prepared | None
    capture_cpu_ms: float


class RunState:
    """One run, as its threads see it.

    Args:
        sources: Where frames come from.
        detector: What scores them.
        sinks: Where results go.
        screen: Where the newest of them go besides.
        config: How frames flow.
        observer: As `Pipeline` takes it.

    Attributes:
        criteria: What frames are scored for; any thread may replace it within `changing`.
        change: How often criteria and what the detector decides by were changed.
        frames: From the sources to the detector; a compartment for each source.
        results: From the detector to the sinks, in the order in which frames were taken.
        latest: By a source's number, its last scored frame, as `Latest` has it.
        learner: Gets every scored frame; None for nobody.
        stopped: Ends reading and scoring, after the frames in work.
        interrupted: That was wanted from outside.
        going: Cleared during a pause.
        waits: Whether no frame may be dropped.
        shown: Whether somebody needs the full image.
        error: The first error, which the run ends with.
        lock: Of that, and of which sources have ended.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        detector: FrameDetector,
        sinks: Sequence[SinkWorker],
        screen: ScreenSlot | None,
        config: PipelineConfig,
        observer: Callable[[Result], None] | None,
    ) -> None:
        self.sources, self.detector, self.config = list(sources), detector, config
        self.sinks, self.screen = sinks, screen
        self.criteria = config.criteria
        self.change = 0
        self._changing = threading.RLock()
        self.waits = config.policy is Policy.WAIT
        self.shown = screen is not None or any(sink.shows for sink in sinks)
        self.frames: Mailbox[Job] = Mailbox(config.room(len(sources)), config.policy, len(sources))
        self.results: InOrder[tuple[Job, Criteria, Result]] = InOrder(
            self._hand_on, ahead=2 * config.workers * config.batch
        )
        self.latest: dict[int, tuple[str, Prepared, float]] = {}
        self.learner: FrameLearner | None = None
        self.tally = Tally(sources, recent=not self.waits)
        self.stopped, self.going = threading.Event(), threading.Event()
        self.going.set()
        self.interrupted = False
        self.error: BaseException | None = None
        self._observer = observer
        self.lock = threading.Lock()

    def prepare(self, frame: Frame) -> Prepared:
        """Resizes a frame for the class that is looked for at present; raises FrameError if the frame does not suit."""
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

    def _hand_on(self, answer: tuple[Job, Criteria, Result]) -> None:
        """Counts a result and gives it to observer, screen and sinks; called for one at a time, with its criteria."""
        job, criteria, result = answer
        counts = self.tally.sources[job.source]
        if isinstance(result, BadFrame):
            counts.bad_seen += 1
        else:
            frame, detection = result
            counts.alarm.follow(criteria.alarm, criteria.class_name)
            detection = detection.with_alarm(counts.alarm.update(bool(detection.is_anomalous)))
            self.tally.count(job.source, frame, detection, job.capture_cpu_ms)
            if job.prepared is not None:
                self.latest[job.source] = (self.name_of(job.source, frame), job.prepared, frame.captured_at)
            result = (frame, detection)
        if self._observer is not None:
            self._observer(result)
        if self.screen is not None:
            self.screen.newest.put(result, job.source)
        for sink in self.sinks:
            sink.put(result, job.source)

    def remember(self, error: BaseException) -> None:
        """Holds the first error for the main thread."""
        with self.lock:
            if self.error is None:
                self.error = error

    def stop(self, *, interrupted: bool = False) -> None:
        """Ends reading and scoring, after the frames in work; wakes sources that wait for a camera or a file."""
        self.interrupted |= interrupted
        self.stopped.set()
        for source in self.sources:
            source.interrupt()

    def fail(self, error: BaseException) -> None:
        """Holds the error and stops every thread at once."""
        self.remember(error)
        self.stop()
        self.frames.abort()
        for sink in self.sinks:
            sink.queue.abort()
        self.results.abort()  # after the sinks: whoever hands a result on may have been waiting for room in one
