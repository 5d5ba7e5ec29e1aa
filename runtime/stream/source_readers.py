"""The threads that read: one for each source, which alone uses it and closes it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from kanoclip.runtime.detect.preprocess import Prepared
from kanoclip.runtime.errors import KanoclipError, one_line
from kanoclip.runtime.sources.base import Interruptible, Source
from kanoclip.runtime.stream.counters import Tally
from kanoclip.runtime.system.bounded_queue import Mailbox, MailboxClosedError
from kanoclip.runtime.types import BadFrame, Frame

log = logging.getLogger(__name__)


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


class Readers:
    """Reads sources into a mailbox until they end.

    One source that fails ends the run. Of several, the others go on: it is said, and kept in the tally.

    Args:
        sources: At least one.
        frames: Where to; it has a compartment for each source, and is closed when all have ended.
        prepare: Resizes a frame in the source's thread; None to leave that to the detector's. What it raises is the
            source's failure.
        stop: Ends the reading.
        passes: Tells whether what comes is to be let go by.
        tally: Where it is counted.
        remember: Takes the error of a source that is alone, and of one that cannot be closed.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        frames: Mailbox[Job],
        prepare: Callable[[Frame], tuple[Frame, Prepared]] | None,
        *,
        stop: threading.Event,
        passes: Callable[[], bool],
        tally: Tally,
        remember: Callable[[BaseException], None],
    ) -> None:
        self._sources = sources
        self._frames = frames
        self._prepare = prepare
        self._stop = stop
        self._passes = passes
        self._tally = tally
        self._remember = remember
        self._reading = len(sources)
        self._lock = threading.Lock()
        alone = len(sources) == 1
        self._threads = [
            threading.Thread(
                target=self._read,
                args=(number,),
                name="kanoclip-source" if alone else f"kanoclip-source-{number}",
                daemon=True,
            )
            for number in range(len(sources))
        ]

    def start(self) -> None:
        """Starts to read."""
        for thread in self._threads:
            thread.start()

    def join(self, seconds: float) -> None:
        """Waits so long in all; a thread in a device's blocking read is left behind."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    def interrupt(self) -> None:
        """Wakes sources that wait for a camera or a file to come; from any thread."""
        for source in self._sources:
            if isinstance(source, Interruptible):
                source.interrupt()

    def give_up(self, number: int, error: BaseException) -> None:
        """Ends one source of several, for an error that is its own; the others go on.

        Args:
            number: Which.
            error: Why; said when it is the source's first.
        """
        with self._lock:
            if self._tally.sources[number].error is not None:
                return
            words = one_line(error)
            if not isinstance(error, KanoclipError):
                words = f"{self._sources[number].name}: unexpected {type(error).__name__}: {words}"
            self._tally.sources[number].error = words
            others = self._reading > 1
        log.warning("%s%s", words, "; the other sources go on" if others else "")

    def _read(self, number: int) -> None:
        """A source's thread."""
        source, counts = self._sources[number], self._tally.sources[number]
        try:
            with suppress(MailboxClosedError):
                started = time.thread_time()
                for item in source.frames():
                    if self._stop.is_set() or counts.error is not None:
                        break
                    spent = (time.thread_time() - started) * 1e3
                    counts.deliver()
                    if not self._passes():
                        evicted = self._frames.put(self._job(number, item, spent), number)
                        if evicted is not None and isinstance(evicted.item, BadFrame):
                            counts.bad_evicted += 1
                    started = time.thread_time()
        except BaseException as error:
            # What was read before is sound: let it be scored and written, then report. After a stop nobody reads on,
            # and a device complaining about that is no failure.
            if not self._stop.is_set():
                self._ended_by(number, error)
        finally:
            with self._lock:
                self._reading -= 1
                last = not self._reading
            if last:
                self._frames.close()
            try:
                source.close()
            except BaseException as error:
                self._remember(error)

    def _job(self, number: int, item: Frame | BadFrame, spent: float) -> Job:
        if isinstance(item, BadFrame):
            return Job(number, item, None, spent)
        spent += item.capture_cpu_ms
        if self._prepare is None:
            return Job(number, item, None, spent)
        return Job(number, *self._prepare(item), spent)

    def _ended_by(self, number: int, error: BaseException) -> None:
        if len(self._sources) == 1:
            self._remember(error)
        else:
            self.give_up(number, error)
