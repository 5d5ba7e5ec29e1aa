"""The threads that read: one for each source. Only this thread uses the source and closes it."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from kanoclip.runtime.stream.run_state import Job, RunState
from kanoclip.runtime.stream.supervision.sources import source_ended, source_failed
from kanoclip.runtime.system.queues import MailboxClosedError
from kanoclip.runtime.types import BadFrame, Frame


class SourceWorker(threading.Thread):
    """Reads one source of a run until it ends, fails or the run is to end.

    Where no frame is dropped this thread resizes each one as well, right after it was decoded and while its pixels are
    in the cache.
    """

    def __init__(self, run: RunState, number: int) -> None:
        name = "kanoclip-source" if len(run.sources) == 1 else f"kanoclip-source-{number}"
        super().__init__(name=name, daemon=True)
        self._run = run
        self._number = number

    def run(self) -> None:
        """The thread."""
        source = self._run.sources[self._number]
        try:
            with suppress(MailboxClosedError):
                self._read()
        except BaseException as error:
            # What was read before is sound: it is scored and written before the error is reported. After a stop nothing
            # reads on, and a device's error about that is no failure.
            if not (self._run.stopped.is_set() or self._run.tally.sources[self._number].removed):
                source_failed(self._run, self._number, error)
        finally:
            source_ended(self._run, self._number)
            try:
                source.close()
            except BaseException as error:
                self._run.remember(error)

    def _read(self) -> None:
        """Source into mailbox."""
        run, counts = self._run, self._run.tally.sources[self._number]
        started = time.thread_time()
        for item in run.sources[self._number].frames():
            if run.stopped.is_set() or counts.removed or counts.error is not None:
                return
            spent = (time.thread_time() - started) * 1e3
            counts.deliver()
            if run.waits or run.going.is_set():  # else it is paused, and a live view's frames go by
                evicted = run.frames.put(self._job(item, spent), self._number)
                if evicted is not None and isinstance(evicted.item, BadFrame):
                    counts.bad_evicted += 1
            started = time.thread_time()

    def _job(self, item: Frame | BadFrame, spent: float) -> Job:
        """An item on its way to the detector; a frame that does not suit raises FrameError, as the source's failure."""
        prepared = None
        if isinstance(item, Frame):
            spent += item.capture_cpu_ms
            if self._run.waits:
                prepared = self._run.prepare(item)
                if not self._run.shown:
                    # The full image goes no further; its memory, still in the cache, is there for the next one.
                    item = item.shrunk(prepared.image, (prepared.height, prepared.width))
        return Job(self._number, item, prepared, spent)
