"""A stream in its caller's own loop: results, errors, and a loop that is left early."""

from __future__ import annotations

import threading
import time

import cv2
import numpy as np
import pytest

from kanoclip.runtime import Detector, Stream
from kanoclip.runtime.errors import FrameError, SinkError, SourceError
from kanoclip.runtime.sinks import BaseSink
from kanoclip.runtime.sources import BaseSource
from kanoclip.runtime.system.queues import Policy
from kanoclip.runtime.types import Frame

pytestmark = pytest.mark.timeout(60)


class Grey(BaseSource):
    name, fps, root = "grey", None, None

    def __init__(self, count, *, live=False, error_at=None):
        self.count, self.live, self.error_at, self.closed = count, live, error_at, 0

    def frames(self):
        index = 0
        while self.count is None or index < self.count:
            if index == self.error_at:
                raise SourceError("grey: unplugged")
            yield Frame(index, self.name, time.time(), np.full((16, 16, 3), index % 256, np.uint8), 0.0)
            index += 1

    def close(self):
        self.closed += 1


class Collect(BaseSink):
    name, shows = "collect", False

    def __init__(self, close_error=False):
        self.indices, self.closed, self.close_error = [], 0, close_error

    def write(self, frame, detection):
        self.indices.append(frame.index)

    def skip(self, bad):
        pass

    def close(self):
        self.closed += 1
        if self.close_error:
            raise SinkError("out.mp4: could not be completed")


@pytest.fixture(scope="module")
def detector(toy_bundle):
    with Detector.load(toy_bundle, device="cpu") as detector:
        yield detector


@pytest.fixture(autouse=True)
def no_thread_stays():
    yield
    deadline = time.monotonic() + 5
    while any(t.name.startswith("kanoclip-") for t in threading.enumerate()):
        assert time.monotonic() < deadline, threading.enumerate()
        time.sleep(0.01)


def test_files_lose_nothing_although_the_loop_is_slow(detector):
    source, sink, seen = Grey(12), Collect(), []
    with Stream(source, detector, [sink]) as stream:
        for frame, found in stream:
            time.sleep(0.01)
            seen.append(frame.index)
            assert found.alarm == found.is_anomalous
    assert seen == sink.indices == list(range(12))
    assert (source.closed, sink.closed, stream.summary.frames, stream.summary.interrupted) == (1, 1, 12, False)


def test_of_a_live_source_the_newest_is_yielded_and_the_rest_is_counted(detector):
    source, seen = Grey(300, live=True), []
    with Stream(source, detector) as stream:
        for frame, _ in stream:
            time.sleep(0.01)
            seen.append(frame.index)
    assert seen == sorted(seen) and seen[-1] == 299
    summary = stream.summary
    assert len(seen) + summary.sink_dropped.get("results", 0) + summary.dropped == 300


@pytest.mark.parametrize("policy", list(Policy))
def test_a_loop_that_is_left_ends_the_run_and_closes_all(detector, policy):
    source, sink = Grey(None), Collect()
    with Stream(source, detector, [sink], policy=policy) as stream:
        for frame, _ in stream:
            if frame.index >= 3:
                break
    assert source.closed == sink.closed == 1 and stream.summary.interrupted


def test_an_own_error_in_the_loop_is_the_one_that_is_raised(detector):
    source = Grey(None)
    with pytest.raises(ZeroDivisionError), Stream(source, detector, [Collect(close_error=True)]) as stream:
        for _ in stream:
            raise ZeroDivisionError
    assert source.closed == 1


def test_a_source_that_fails_is_reported_after_its_frames(detector):
    seen = []
    with pytest.raises(SourceError, match="unplugged"), Stream(Grey(None, error_at=5), detector) as stream:
        for frame, _ in stream:
            seen.append(frame.index)
    assert seen == [0, 1, 2, 3, 4]


def test_a_sink_that_cannot_be_finished_is_reported_although_the_loop_was_left(detector):
    with pytest.raises(SinkError, match=r"out\.mp4"), Stream(Grey(None), detector, [Collect(close_error=True)]):
        pass


def test_an_unknown_class_is_refused(detector):
    with pytest.raises(FrameError, match="unknown class"), Stream(Grey(3), detector, class_name="nut") as stream:
        list(stream)


def test_what_can_be_written_for_a_source(detector, tmp_path, caplog):
    for number in range(2):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "2.png").write_bytes(b"no image")
    with Stream(tmp_path, detector) as stream:
        assert [frame.index for frame, _ in stream] == [0, 1]
    assert stream.summary.skipped == 1 and "2.png" in caplog.text
    with Stream([tmp_path / "0.png", str(tmp_path / "1.png")], detector) as stream:
        assert len({frame.stream for frame, _ in stream}) == 2
    with pytest.raises(SourceError, match="no such file"):
        Stream(tmp_path / "none.png", detector)


def test_a_good_frame_of_the_loop_becomes_a_reference(make_toy_bundle, tmp_path):
    folder = make_toy_bundle(tmp_path / "own.kanoclip", grid=(4, 4), memory_rows=24)
    with Detector.load(folder, device="cpu") as detector, Stream(Grey(None), detector) as stream:
        for frame, found in stream:
            if frame.index == 3:
                assert found.threshold == 0.5
                assert stream.add_reference(frame.image).references == 1
                assert stream.add_reference().references == 2
            elif found.threshold != 0.5:
                break
        first, second = detector.rules.memory_of().names
        assert first == "a frame given while the stream ran" and second.startswith("grey, frame ")
        assert found.threshold == detector.thresholds_of().image
        with pytest.raises(FrameError, match="unknown class 'nut'"):
            stream.add_reference(class_name="nut")
