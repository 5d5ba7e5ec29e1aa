"""The threads that score: each takes frames from the mailbox, and the results keep the frames' order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from kanoclip.runtime.errors import FrameError
from kanoclip.runtime.stream.config import Criteria
from kanoclip.runtime.stream.run_state import Job, RunState
from kanoclip.runtime.stream.supervision.sources import source_failed
from kanoclip.runtime.system.queues import MailboxClosedError, MailboxEmptyError
from kanoclip.runtime.types import BadFrame, Detection, Frame


class FrameTaker:
    """Gives the threads that score their next frames, and each item its number. For use by several threads."""

    def __init__(self, run: RunState) -> None:
        self._run = run
        self._taking = threading.Lock()  # its holder takes the next items together with a number
        self._taken = 0
        self._frames_taken = 0

    def take(self, *, wait: bool) -> tuple[int, list[Job]] | None:
        """The next items and the number of the first; None once there are enough frames.

        It waits for one item and takes what is there; or it takes a whole batch that is there already, without a wait.

        Raises:
            MailboxEmptyError: No item came for a while, or there is no whole batch.
            MailboxClosedError: No further item will come.
        """
        config, frames = self._run.config, self._run.frames
        with self._taking:
            most = config.batch
            if config.max_frames is not None:
                most = min(most, config.max_frames - self._frames_taken)
            if not most:
                return None
            if not (wait or self._run.going.is_set()):
                raise MailboxEmptyError  # what is in flight does not wait for the end of a pause
            # The thread must notice a stop although a camera may deliver nothing for long.
            jobs = frames.get_some(most, timeout=0.1) if wait else frames.get_some(most, timeout=0, least=most)
            # What a file gave is scored after a pause, a live view's goes by.
            while wait and not self._run.going.is_set():
                if not self._run.waits or self._run.stopped.is_set():
                    raise MailboxEmptyError
                self._run.going.wait(0.1)
            number = self._taken
            self._taken += len(jobs)
            self._frames_taken += sum(isinstance(job.item, Frame) for job in jobs)
            return number, jobs


class _Flight(NamedTuple):
    """Items that are being scored; `number` is the first one's, `collect` waits for the frames' detections."""

    number: int
    jobs: Sequence[Job]
    change: int
    criteria: Criteria
    collect: Callable[[], list[Detection]]


class InferenceWorker(threading.Thread):
    """Scores frames beside the other workers, which share the taker, until none are left or the run is to end."""

    def __init__(self, run: RunState, taker: FrameTaker, number: int) -> None:
        super().__init__(name=f"kanoclip-detector-{number}", daemon=True)
        self._run = run
        self._taker = taker
        self._flying: deque[_Flight] = deque()

    def run(self) -> None:
        """The thread. Where a further batch waits already it begins that one before it waits for the one before."""
        try:
            with suppress(MailboxClosedError):
                while not self._run.stopped.is_set():
                    with suppress(MailboxEmptyError):
                        taken = self._taker.take(wait=not self._flying)
                        if taken is None:
                            break
                        self._begin(*taken)
                        if len(self._flying) < self._run.config.in_flight:
                            continue
                    if self._flying:
                        self._collect()
            while self._flying:
                self._collect()
        except BaseException as error:
            self._run.fail(error)

    def _begin(self, number: int, jobs: Sequence[Job]) -> None:
        """Begins to score items; `number` is the first one's."""
        try:
            jobs = [job if job.prepared is not None else self._prepared(job) for job in jobs]
            self._flying.append(self._submitted(number, jobs))
        except BaseException:
            while self._flying:  # what was taken before is sound
                self._collect()
            raise

    def _submitted(self, number: int, jobs: Sequence[Job]) -> _Flight:
        prepared = [job.prepared for job in jobs if job.prepared is not None]
        change, criteria = self._run.steady()
        collect = self._run.detector.submit(prepared, criteria.class_name) if prepared else list
        return _Flight(number, jobs, change, criteria, collect)

    def _collect(self) -> None:
        """Waits for the oldest items in flight. Each result is handed on after all results before it."""
        flight = self._flying.popleft()
        detections = iter(flight.collect())
        while self._run.change != flight.change:
            # Thresholds that changed meanwhile go with another alarm rule: such frames are scored once more.
            flight = self._submitted(flight.number, flight.jobs)
            detections = iter(flight.collect())
        for offset, job in enumerate(flight.jobs):
            result = job.item if isinstance(job.item, BadFrame) else (job.item, next(detections))
            self._run.results.put(flight.number + offset, (job, flight.criteria, result))
        learner = self._run.learner  # which the page may change at any time
        if learner is not None:  # after the verdicts, which do not wait for it
            for job in flight.jobs:
                if job.prepared is not None and isinstance(job.item, Frame):
                    name = self._run.name_of(job.source, job.item)
                    learner.look(name, job.prepared, job.item.image, flight.criteria.class_name)

    def _prepared(self, job: Job) -> Job:
        """The job with its frame prepared. If the frame does not suit, it is bad, and its source ends."""
        if isinstance(job.item, BadFrame):
            return job
        try:
            return job._replace(prepared=self._run.prepare(job.item))
        except FrameError as error:
            if len(self._run.sources) == 1:
                raise
            source_failed(self._run, job.source, error)
            frame = job.item
            return job._replace(item=BadFrame(frame.index, frame.source, str(error), frame.stream))
