"""A stream of grey frames, and a sink that keeps what comes of them: for tests of what controls a stream."""

from __future__ import annotations

import time

import numpy as np

from kanoclip.runtime.sinks import BaseSink
from kanoclip.runtime.sources import BaseSource
from kanoclip.runtime.types import Frame


class Grey(BaseSource):
    """Frames of grey 100 of 255, without end: on a toy bundle score 0.392 of class nut, 0.608 of class bolt.

    Args:
        live: As a camera: a late reader misses frames.

    Attributes:
        read: How many frames were read.
    """

    name, fps, root, count = "line 3", None, None, None

    def __init__(self, live=True):
        self.live, self.read = live, 0

    def frames(self):
        while True:
            self.read += 1
            yield Frame(self.read - 1, self.name, time.time(), np.full((40, 60, 3), 100, np.uint8), 0.0)
            time.sleep(0.002)

    def close(self):
        pass


class Collect(BaseSink):
    """Keeps (index, detection) of each frame in `seen`."""

    name, shows = "collect", False

    def __init__(self):
        self.seen = []

    def write(self, frame, detection):
        self.seen.append((frame.index, detection))

    def skip(self, bad):
        raise AssertionError(bad)

    def close(self):
        pass
