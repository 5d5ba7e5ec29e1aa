"""The threads that score: each takes frames from the mailbox, and what comes of them keeps the frames' order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from kanoclip.runtime.detect.alarm import Alarm
from kanoclip.runtime.detect.preprocess import Prepared
from kanoclip.runtime.errors import FrameError
from kanoclip.runtime.stream.config import PipelineConfig, Question
from kanoclip.runtime.stream.reorder import InOrder
from kanoclip.runtime.stream.source_readers import Job
from kanoclip.runtime.system.bounded_queue import Mailbox, MailboxClosedError, MailboxEmptyError, Policy
from kanoclip.runtime.types import BadFrame, Detection, Frame, Image, Result


class FrameDetector(Protocol):
    """The part of `Detector` that the stream needs."""

    def prepare(self, frame: Image, class_name: str | None = None, size: tuple[int, int] | None = None) -> Prepared:
        """Resizes a frame, uint8 [H, W, 3] BGR, of an image of (height, width) `size`."""
        ...

    def infer(self, frames: Sequence[Prepared], class_name: str | None = None) -> list[Detection]:
        """Scores prepared frames, in their order."""
        ...


class Answer(NamedTuple):
    """A frame that has been through the detector, with what was asked of it."""

    job: Job
    question: Question
    result: Result


class SourceAlarm:
    """The alarm of one source, which follows the question; it looks back on verdicts over the same class only."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._alarm = Alarm(question.alarm)

    def update(self, question: Question, is_anomalous: bool) -> bool:
        """Takes the next frame's verdict and what was asked of it; returns whether the alarm is up."""
        if question is not self._question:
            if question.class_name != self._question.class_name:
                self._alarm = Alarm(question.alarm)
            elif question.alarm != self._question.alarm:
                self._alarm.follow(question.alarm)
            self._question = question
        return self._alarm.update(is_anomalous)


class Lanes:
    """Scores what is in a mailbox until it is closed and empty, or a stop is asked for.

    Args:
        detector: Used by so many threads at once as there are lanes.
        frames: Where frames come from.
        config: How many threads score, how many frames at once, how many in all, and what is asked of them at first.
            Where frames may be dropped, those taken during a pause are let go by; otherwise they wait for its end.
        stop: Ends the scoring after the frames in work.
        going: Cleared during a pause.
        hand_on: Takes what comes of the frames, one at a time, in the order in which they were taken.
        refuse: Told a source's number and the error where one of its frames cannot be prepared; it may raise the error.
        fail: Takes any other error.
        done: Called by the last thread.

    Attributes:
        question: May be exchanged at any time, by any thread.
    """

    def __init__(
        self,
        detector: FrameDetector,
        frames: Mailbox[Job],
        config: PipelineConfig,
        *,
        stop: threading.Event,
        going: threading.Event,
        hand_on: Callable[[Answer], None],
        refuse: Callable[[int, FrameError], None],
        fail: Callable[[BaseException], None],
        done: Callable[[], None],
    ) -> None:
        self.question = config.question
        self._detector = detector
        self._frames = frames
        self._batch = config.batch
        self._max_frames = config.max_frames
        self._lets_by = config.policy is Policy.DROP_OLDEST
        self._stop = stop
        self._going = going
        self._refuse = refuse
        self._fail = fail
        self._done = done
        self._taking = threading.Lock()  # who holds it takes the next items and a number with them
        self._taken = 0
        self._frames_taken = 0
        self._results: InOrder[Answer] = InOrder(hand_on, ahead=2 * config.lanes * config.batch)
        self._left = config.lanes
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._infer, name=f"kanoclip-detector-{lane}", daemon=True)
            for lane in range(config.lanes)
        ]

    def start(self) -> None:
        """Starts to score."""
        for thread in self._threads:
            thread.start()

    def at_work(self) -> threading.Thread | None:
        """A thread that still scores; None when all have ended."""
        return next((thread for thread in self._threads if thread.is_alive()), None)

    def join(self, seconds: float) -> None:
        """Waits so long in all."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    def abort(self) -> None:
        """Hands nothing on any more."""
        self._results.abort()

    def prepare(self, frame: Frame) -> Prepared:
        """Resizes a frame for what is asked at present.

        Raises:
            FrameError: It does not suit.
        """
        return self._detector.prepare(frame.image, self.question.class_name, frame.full_size)

    def _infer(self) -> None:
        """A thread: mailbox into `hand_on`."""
        try:
            with suppress(MailboxClosedError):
                # A stop must be noticed although a camera may deliver nothing for long.
                while not self._stop.is_set():
                    with suppress(MailboxEmptyError):
                        taken = self._take()
                        if taken is None:
                            break
                        self._infer_batch(*taken)
        except BaseException as error:
            self._fail(error)
        finally:
            with self._lock:
                self._left -= 1
                last = not self._left
            if last:
                self._done()

    def _take(self) -> tuple[int, list[Job]] | None:
        """The next items and the number of the first; None once there are frames enough."""
        with self._taking:
            most = self._batch
            if self._max_frames is not None:
                most = min(most, self._max_frames - self._frames_taken)
            if not most:
                return None
            jobs = self._frames.get_some(most, timeout=0.1)
            if not self._going.is_set() and not self._outlast_pause():
                raise MailboxEmptyError
            number = self._taken
            self._taken += len(jobs)
            self._frames_taken += sum(isinstance(job.item, Frame) for job in jobs)
            return number, jobs

    def _outlast_pause(self) -> bool:
        """Whether what was taken during a pause is to be scored after it."""
        while not (self._lets_by or self._stop.is_set()):
            if self._going.wait(0.1):
                return True
        return False

    def _infer_batch(self, number: int, jobs: Sequence[Job]) -> None:
        """Scores frames beside the other lanes; what comes of it is handed on after all that came before."""
        question = self.question
        jobs = [job if job.prepared is not None else self._prepared(job) for job in jobs]
        prepared = [job.prepared for job in jobs if job.prepared is not None]
        detections = iter(self._detector.infer(prepared, question.class_name) if prepared else ())
        for offset, job in enumerate(jobs):
            result = job.item if isinstance(job.item, BadFrame) else (job.item, next(detections))
            self._results.put(number + offset, Answer(job, question, result))

    def _prepared(self, job: Job) -> Job:
        """A job with its frame prepared, or with a bad one where it does not suit and that is to be borne."""
        if isinstance(job.item, BadFrame):
            return job
        try:
            return job._replace(prepared=self.prepare(job.item))
        except FrameError as error:
            self._refuse(job.source, error)
            frame = job.item
            return job._replace(item=BadFrame(frame.index, frame.source, str(error), frame.stream))
