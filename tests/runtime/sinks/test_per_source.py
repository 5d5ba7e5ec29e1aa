"""A sink for each source."""

from __future__ import annotations

import numpy as np
import pytest

from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.sinks import BaseSink
from kanoclip.runtime.sinks.per_source import PerSourceScreen, PerSourceSink
from kanoclip.runtime.types import BadFrame, Frame


class Sink(BaseSink):
    name = "sink"
    dropped, cpu_ms = 0, 0.0

    def __init__(self, shows=False, error=False, going=True):
        self.shows, self.error, self.going = shows, error, going
        self.seen, self.closed, self.polls, self.reopened = [], 0, 0, 0

    def write(self, frame, detection):
        self.seen.append(frame.index)

    def skip(self, bad):
        self.seen.append(-bad.index)

    def poll(self):
        self.polls += 1
        return self.going

    def reopen(self):
        self.reopened += 1

    def close(self):
        self.closed += 1
        if self.error:
            raise SinkError("a.mp4: could not be completed")


def frame(index, stream):
    return Frame(index, stream, 0.0, np.zeros((2, 2, 3), np.uint8), 0.0, stream=stream)


def test_each_gets_its_own():
    one, other = Sink(), Sink(shows=True)
    other.dropped, other.cpu_ms = 3, 2.5
    both = PerSourceSink("images", {"a": one, "b": other})
    both.write(frame(1, "a"), None)
    both.write(frame(2, "b"), None)
    both.skip(BadFrame(3, "x.jpg", "broken", stream="b"))
    assert (one.seen, other.seen) == ([1], [2, -3])
    assert (both.name, both.shows, both.dropped, both.cpu_ms) == ("images", True, 3, 2.5)
    both.reopen()
    assert one.reopened == other.reopened == 1


def test_one_that_cannot_be_finished_leaves_none_unfinished():
    one, other = Sink(error=True), Sink()
    with pytest.raises(SinkError, match=r"a\.mp4"):
        PerSourceSink("video", {"a": one, "b": other}).close()
    assert one.closed == other.closed == 1


def test_every_window_is_served_and_any_ends_the_run():
    one, other = Sink(going=False), Sink()
    screen = PerSourceScreen("window", {"a": one, "b": other})
    assert not screen.poll()
    assert one.polls == other.polls == 1
    one.going = True
    assert screen.poll()
