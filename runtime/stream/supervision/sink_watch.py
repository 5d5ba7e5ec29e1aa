"""The main thread's eye on a sink's thread: whether it hangs, and when it is left behind."""

from __future__ import annotations

import logging
import time

from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.stream.sink_worker import SinkWorker

log = logging.getLogger(__name__)


class SinkWatch:
    """Sees to a sink's calls that take too long.

    Args:
        worker: The sink's thread.
        lossless: No result may be lost: a sink that is left behind is an error, unless it may fail anyway.
    """

    def __init__(self, worker: SinkWorker, *, lossless: bool) -> None:
        self._worker = worker
        self._lossless = lossless
        self._deadline: float | None = None

    def look(self, *, hurry: bool) -> None:
        """Called all the time.

        Args:
            hurry: The run is to end: wait no longer than the grace. Else an opened sink has all the time it takes.
        """
        worker, now, grace_s = self._worker, time.monotonic(), self._worker.factory.grace_s
        since = worker.busy_since
        busy_s = 0.0 if since is None else now - since
        late = worker.recovers and busy_s > worker.factory.patience_s
        if late:
            worker.refuse(since)
        if not worker.is_alive() or worker.left:
            return
        if not worker.queue.closed:
            if hurry and busy_s > grace_s:  # a thread may be waiting for room in the queue
                self._leave()
        elif not (hurry or late):
            self._deadline = None
        elif self._deadline is None:
            self._deadline = now + grace_s
        elif now >= self._deadline:
            self._leave()

    def _leave(self) -> None:
        worker = self._worker
        worker.left = True
        worker.queue.abort()
        within = f"within {worker.factory.grace_s:g} s"
        words = f"{worker.sink_name}: did not finish {within} and was left behind; its output is incomplete"
        if worker.recovers:
            worker.factory.notify(f"{worker.sink_name}: could not be finished {within} and is left as it is")
        elif self._lossless:
            worker.error = SinkError(words)
        else:
            log.warning("%s", words)
