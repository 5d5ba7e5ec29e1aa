"""A sink that fails, hangs or comes back beside a stream that must not notice."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from sink_driver import DrivenSink

from kanoclip.runtime.errors import SettingsError, SinkError
from kanoclip.runtime.sinks import BaseSink
from kanoclip.runtime.stream.control.figures import cost_of
from kanoclip.runtime.types import BadFrame, Detection, Frame, Timings

pytestmark = pytest.mark.timeout(30)

DETECTION = Detection(0.75, np.zeros((2, 2), np.float32), True, 0.5, (), "nut", Timings(1.0, 2.0, 3.0, 0.5, 0.5))


def frame(index):
    return Frame(index, "camera 0", 1_700_000_000.0, np.zeros((4, 4, 3), np.uint8), 1.0)


class Fragile(BaseSink):
    """Fails or hangs as its workshop says."""

    name = "fragile"
    shows = False
    dropped = 0

    def __init__(self, shop):
        if shop.refusal is not None:
            raise shop.refusal
        self.shop = shop
        shop.made += 1

    def write(self, frame, detection):
        if self.shop.hang is not None:
            self.shop.hang.wait()
        if self.shop.failure is not None:
            raise self.shop.failure
        self.shop.written.append(frame.index)

    def skip(self, bad):
        self.shop.written.append(("bad", bad.index))

    def reopen(self):
        self.shop.reopened += 1

    def close(self):
        self.shop.closed += 1
        if self.shop.close_hang is not None:
            self.shop.close_hang.wait()
        if self.shop.close_failure is not None:
            raise self.shop.close_failure


class Shop:
    def __init__(self):
        self.refusal = self.failure = self.hang = self.close_hang = self.close_failure = None
        self.made = self.closed = self.reopened = 0
        self.written, self.said = [], []

    def guard(self, **options):
        options = {"patience_s": 0.1, "grace_s": 0.2, "first_retry_s": 0.05, "settle_s": 0.0} | options
        return DrivenSink(lambda: Fragile(self), "fragile", shows=False, notify=self.said.append, **options)


@pytest.fixture
def shop():
    shop = Shop()
    yield shop
    for event in (shop.hang, shop.close_hang):
        if event is not None:
            event.set()
    deadline = time.monotonic() + 5
    while any(t.name == "kanoclip-fragile" for t in threading.enumerate()):
        assert time.monotonic() < deadline, threading.enumerate()
        time.sleep(0.01)


def test_what_works_is_left_alone(shop):
    sink = shop.guard()
    sink.write(frame(0), DETECTION)
    sink.skip(BadFrame(1, "x", "broken"))
    sink.worker.reopen()
    sink.close()
    assert shop.written == [0, ("bad", 1)]
    assert (shop.made, shop.closed, shop.reopened, sink.dropped, sink.outage, shop.said) == (1, 1, 1, 0, None, [])


def test_a_failure_is_said_once_and_so_is_its_end(shop):
    sink = shop.guard()
    sink.write(frame(0), DETECTION)
    shop.failure = SinkError("x.jsonl: cannot be written (No space left on device)")
    for index in range(1, 40):
        sink.write(frame(index), DETECTION)
        time.sleep(0.01)
    assert shop.written == [0]
    assert sink.dropped == 39 and "No space left" in sink.outage
    assert 2 <= shop.made <= 5, "tries again, with growing pauses"
    assert shop.made - shop.closed in {0, 1}, "what failed was closed"
    (line,) = shop.said
    assert line.startswith("fragile: x.jsonl: cannot be written (No space left on device); the stream goes on")
    shop.failure = None
    deadline = time.monotonic() + 5
    index = 40
    while sink.outage is not None:
        assert time.monotonic() < deadline
        sink.write(frame(index), DETECTION)
        index += 1
        time.sleep(0.01)
    lost = sink.dropped
    sink.write(frame(1000), DETECTION)
    assert shop.written[-2:] == [index - 1, 1000] and sink.dropped == lost
    assert len(shop.said) == 2
    assert shop.said[1].endswith(f"results dropped meanwhile: {lost}")
    sink.close()


def test_a_sink_that_works_only_for_a_moment_at_a_time_is_said_once(shop):
    sink = shop.guard(settle_s=0.5, first_retry_s=0.01)
    for index in range(60):
        shop.failure = SinkError("x.mp4: the disk is full") if index % 4 == 3 else None
        sink.write(frame(index), DETECTION)
        time.sleep(0.01)
    assert len(shop.said) == 1 and sink.outage is not None
    shop.failure = None
    deadline = time.monotonic() + 5
    while sink.outage is not None:
        assert time.monotonic() < deadline
        sink.write(frame(99), DETECTION)
        time.sleep(0.01)
    assert len(shop.said) == 2
    sink.close()


def test_a_sink_that_cannot_be_opened_at_first_is_opened_later(shop):
    shop.refusal = SinkError("/mnt/x: cannot be written (Read-only file system)")
    sink = shop.guard()
    sink.write(frame(0), DETECTION)
    assert sink.dropped == 1 and len(shop.said) == 1
    shop.refusal = None
    time.sleep(0.2)
    sink.write(frame(1), DETECTION)
    assert shop.written == [1] and sink.outage is None
    sink.close()


@pytest.mark.parametrize("refusal", [SettingsError("mqtt: no such port"), ValueError("a bug")])
def test_what_no_later_try_would_mend_is_refused_at_once(shop, refusal):
    shop.refusal = refusal
    with pytest.raises(type(refusal)):
        shop.guard()


def test_a_bug_in_a_sink_does_not_end_the_stream(shop):
    sink = shop.guard()
    shop.failure = ZeroDivisionError("division by zero")
    sink.write(frame(0), DETECTION)
    assert shop.said[0].startswith("fragile: ZeroDivisionError division by zero;")
    sink.close()


def test_a_reader_of_standard_output_that_has_gone_ends_the_run(shop):
    sink = shop.guard()
    shop.failure = BrokenPipeError()
    with pytest.raises(BrokenPipeError):
        sink.write(frame(0), DETECTION)
    sink.close()
    assert shop.said == []


def test_a_write_that_hangs_costs_the_stream_one_wait(shop):
    sink = shop.guard()
    shop.hang = threading.Event()
    started = time.monotonic()
    for index in range(500):
        sink.write(frame(index), DETECTION)
    assert time.monotonic() - started < 0.5
    assert sink.dropped == 499 and shop.said == [
        "fragile: no answer for 0.1 s; the stream goes on, and results for it are dropped until it works"
    ]
    shop.hang.set()
    time.sleep(0.1)
    sink.write(frame(500), DETECTION)
    assert shop.written == [0, 500], "what was under way is finished, in order"
    assert sink.outage is None and len(shop.said) == 2 and shop.said[1].endswith("dropped meanwhile: 499")
    sink.close()


def test_a_sink_that_hangs_for_ever_is_left_behind(shop):
    sink = shop.guard()
    shop.hang = threading.Event()
    sink.write(frame(0), DETECTION)
    started = time.monotonic()
    sink.close()
    assert time.monotonic() - started < 1
    assert "could not be finished within 0.2 s" in shop.said[-1] and len(shop.said) == 2


def test_a_close_that_hangs_is_left_behind_and_one_that_fails_is_said(shop):
    shop.close_hang = threading.Event()
    sink = shop.guard()
    sink.write(frame(0), DETECTION)
    started = time.monotonic()
    sink.close()
    assert time.monotonic() - started < 1
    assert shop.said == ["fragile: could not be finished within 0.2 s and is left as it is"]
    shop.close_hang.set()

    shop.close_failure = SinkError("x.mp4: the video could not be completed; is the disk full?")
    sink = shop.guard()
    sink.close()
    assert shop.said[1:] == ["fragile: x.mp4: the video could not be completed; is the disk full?"]


def test_an_open_that_hangs_does_not_keep_the_stream_from_starting(shop):
    opened = threading.Event()

    def open_slowly():
        opened.wait()
        return Fragile(shop)

    sink = DrivenSink(open_slowly, "fragile", shows=False, notify=shop.said.append, patience_s=0.05, settle_s=0)
    sink.write(frame(0), DETECTION)
    assert sink.dropped == 1 and len(shop.said) == 1
    opened.set()
    time.sleep(0.1)
    sink.write(frame(1), DETECTION)
    assert shop.written == [1] and len(shop.said) == 2
    sink.close()


def test_what_a_sink_drops_itself_is_counted_also_after_it_was_replaced(shop):
    sink = shop.guard()
    sink.inner.dropped = 5
    assert sink.dropped == 5
    shop.failure = SinkError("gone")
    sink.write(frame(0), DETECTION)
    assert sink.dropped == 6
    shop.failure = None
    time.sleep(0.15)
    sink.write(frame(1), DETECTION)
    sink.inner.dropped = 2
    assert sink.dropped == 8
    sink.close()


def test_processor_time_is_that_of_the_sink_s_own_thread(shop):
    sink = shop.guard(patience_s=5.0)
    sink.inner.write = lambda frame, detection: sum(range(2_000_000))
    sink.write(frame(0), DETECTION)
    assert cost_of(sink.stats).cpu > 5
    sink.close()
