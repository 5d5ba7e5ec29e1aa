"""A sink that comes as a factory, behind its worker, one result at a time and looked after as a stream does."""

from __future__ import annotations

import time

from kanoclip.runtime.sinks import SinkFactory
from kanoclip.runtime.stream.counters import StageStats
from kanoclip.runtime.stream.sink_worker import SinkWorker
from kanoclip.runtime.stream.supervision.sink_watch import SinkWatch
from kanoclip.runtime.system.queues import Mailbox, Policy


class CountingWorker(SinkWorker):
    handled = 0

    def _attempt(self, result):
        try:
            super()._attempt(result)
        finally:
            self.handled += result is not None


class DrivenSink:
    """Each call returns when the sink has done it, or is said to be stuck."""

    def __init__(self, open, name, *, shows, **options):
        self._queue = Mailbox(4, Policy.DROP_OLDEST)
        self.stats = StageStats(name)
        self.worker = CountingWorker(SinkFactory(open, name, shows, **options), self._queue, self.stats)
        self.watch = SinkWatch(self.worker, lossless=False)
        self._given = 0
        self.worker.start()
        self._look_after(lambda: self.worker.opened.is_set())

    @property
    def dropped(self):
        return self.worker.dropped

    @property
    def outage(self):
        return self.worker.faults.outage.words

    @property
    def inner(self):
        return self.worker._sink

    def write(self, frame, detection):
        self._give((frame, detection))

    def skip(self, bad):
        self._give(bad)

    def close(self):
        self._queue.close()
        while self.worker.is_alive() and not self.worker.left:
            self.watch.look(hurry=True)
            time.sleep(0.001)

    def _give(self, result):
        self._given += 1
        self.worker.put(result, 0)
        self._look_after(lambda: self.worker.handled + self._queue.dropped >= self._given)

    def _look_after(self, done):
        while not (done() or self.worker._refusing or self.worker.error is not None):
            self.watch.look(hurry=False)
            time.sleep(0.0005)
        if self.worker.error is not None:
            raise self.worker.error
