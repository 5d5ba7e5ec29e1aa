"""The stream: policies, counts, errors from every thread, signals, and no way to hang."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from kanoclip.runtime.detect.alarm import AlarmRule
from kanoclip.runtime.detect.preprocess import Prepared
from kanoclip.runtime.errors import FrameError, SinkError, SourceError
from kanoclip.runtime.sinks import BaseSink
from kanoclip.runtime.sources import BaseSource
from kanoclip.runtime.stream import sink_worker
from kanoclip.runtime.stream.config import PipelineConfig
from kanoclip.runtime.stream.pipeline import Pipeline
from kanoclip.runtime.system.queues import Policy
from kanoclip.runtime.types import BadFrame, Detection, Frame, Timings

pytestmark = pytest.mark.timeout(30)


class FakeSource(BaseSource):
    name = "fake"
    fps = None
    root = None

    def __init__(self, count, *, bad=(), error_at=None, pause=0.0, live=False):
        self.count, self.live = count, live
        self._bad, self._error_at, self._pause = bad, error_at, pause
        self.closed_by = None
        self.read = 0

    def frames(self):
        index = 0
        while self.count is None or index < self.count:
            if index == self._error_at:
                raise SourceError("fake: unplugged")
            self.read += 1
            if index in self._bad:
                yield BadFrame(index, "fake", "broken")
            else:
                yield Frame(index, "fake", time.time(), np.full((4, 4, 3), index % 256, np.uint8), 1.0)
            time.sleep(self._pause)
            index += 1

    def close(self):
        self.closed_by = threading.current_thread().name


class FakeDetector:
    def __init__(self, *, pause=0.0, error_at=None):
        self.pause, self.error_at, self.calls, self.classes = pause, error_at, 0, set()
        self.preparing, self.runs = set(), []

    def prepare(self, frame, class_name=None, size=None):
        self.preparing.add(threading.current_thread().name)
        self.classes.add(class_name)
        height, width = size or frame.shape[:2]
        return Prepared(frame, height, width, 2.0, 1.5)

    def submit(self, frames, class_name=None):
        return lambda: self.infer(frames, class_name)

    def infer(self, frames, class_name):
        self.runs.append(len(frames))
        return [self.judge_one(frame.image, class_name) for frame in frames]

    def judge_one(self, frame, class_name):
        if self.calls == self.error_at:
            raise RuntimeError("engine lost")
        self.calls += 1
        self.classes.add(class_name)
        time.sleep(self.pause)
        score = float(frame[0, 0, 0]) / 255
        return Detection(
            score,
            np.full((2, 2), score, np.float32),
            score >= 0.5,
            0.5,
            (),
            class_name or "object",
            Timings(2.0, 3.0, 4.0, 1.5, 2.5),
        )


class FakeSink(BaseSink):
    shows = True

    def __init__(self, name="fake-sink", *, pause=0.0, error_at=None, close_error=False):
        self.name, self.pause, self.error_at, self.close_error = name, pause, error_at, close_error
        self.indices, self.bad, self.closed = [], [], 0

    def write(self, frame, detection):
        if len(self.indices) == self.error_at:
            raise SinkError("out.jsonl: cannot be written (No space left on device)")
        time.sleep(self.pause)
        assert detection.score == pytest.approx(frame.image[0, 0, 0] / 255)
        self.indices.append(frame.index)

    def skip(self, bad):
        self.bad.append(bad.index)

    def close(self):
        self.closed += 1
        if self.close_error:
            raise SinkError("out.mp4: could not be completed")


class FakeScreen(FakeSink):
    def __init__(self, quit_after):
        super().__init__("window")
        self.quit_after, self.polls, self.threads = quit_after, 0, set()

    def poll(self):
        self.polls += 1
        self.threads.add(threading.current_thread())
        return self.polls < self.quit_after


def settle():
    """Waits until no thread of a pipeline is left."""
    deadline = time.monotonic() + 5
    while any(t.name.startswith("kanoclip-") for t in threading.enumerate()):
        assert time.monotonic() < deadline, threading.enumerate()
        time.sleep(0.01)


WAIT = PipelineConfig(Policy.WAIT)
DROP = PipelineConfig(Policy.DROP_OLDEST)


def test_wait_loses_nothing_although_detector_and_sink_are_slow():
    source, slow, fast = FakeSource(30, bad={3, 7}), FakeSink("slow", pause=0.005), FakeSink("fast")
    summary = Pipeline(source, FakeDetector(pause=0.002), [slow, fast], WAIT).run()
    expected = [i for i in range(30) if i not in {3, 7}]
    assert slow.indices == fast.indices == expected
    assert slow.bad == fast.bad == [3, 7]
    assert (summary.frames, summary.skipped, summary.dropped, summary.sink_dropped) == (28, 2, 0, {})
    assert slow.closed == fast.closed == 1
    assert source.closed_by == "kanoclip-source"
    assert not summary.interrupted
    settle()


def test_drop_oldest_counts_every_frame_it_loses_and_keeps_the_order():
    sink = FakeSink()
    summary = Pipeline(
        FakeSource(100, bad=range(0, 100, 10), pause=0.001), FakeDetector(pause=0.01), [sink], DROP
    ).run()
    assert summary.dropped > 10
    assert summary.frames + summary.skipped + summary.dropped == 100
    assert summary.skipped == 10  # also the broken ones that were pushed out
    assert sink.indices == sorted(sink.indices)
    assert sink.indices[-1] == 99
    settle()


def test_a_slow_sink_drops_its_own_oldest_and_holds_nobody_up():
    slow, fast = FakeSink("slow", pause=0.05), FakeSink("fast")
    detector = FakeDetector(pause=0.002)
    summary = Pipeline(FakeSource(60, pause=0.004, live=True), detector, [slow, fast], DROP).run()
    assert summary.sink_dropped["slow"] > 20
    assert len(slow.indices) + summary.sink_dropped["slow"] == summary.frames
    assert len(fast.indices) + summary.sink_dropped.get("fast", 0) == summary.frames
    assert summary.frames > 40
    assert slow.indices[-1] == fast.indices[-1]


def test_stages_are_measured_and_summed():
    summary = Pipeline(FakeSource(10), FakeDetector(), [FakeSink("disk", pause=0.005)], WAIT).run()
    stages = {stage.name: stage for stage in summary.stages}
    assert list(stages) == ["capture", "resize", "inference", "decide", "disk"]
    assert [stages[n].mean for n in ("capture", "resize", "inference", "decide")] == [1.0, 2.0, 3.0, 4.0]
    assert all(stage.count == 10 for stage in summary.stages)
    assert 5.0 <= stages["disk"].mean < 50
    assert summary.outside_inference_ms == pytest.approx(1 + 2 + 4 + stages["disk"].mean)
    assert [stages[n].cpu for n in ("resize", "inference", "decide")] == [1.5, None, 2.5]
    # A sink that sleeps costs time but no processor.
    assert 0 <= stages["disk"].cpu < 2.0 and 0 <= stages["capture"].cpu < 2.0
    assert summary.outside_inference_cpu_ms == pytest.approx(4.0 + stages["disk"].cpu + stages["capture"].cpu)


def test_anomalies_class_and_frame_limit():
    detector, sink = FakeDetector(), FakeSink()
    config = PipelineConfig(Policy.WAIT, class_name="nut", max_frames=200)
    summary = Pipeline(FakeSource(None, bad={0}), detector, [sink], config).run()
    assert summary.frames == 200 == len(sink.indices)
    assert summary.anomalous == sum(i >= 128 for i in sink.indices)
    assert detector.classes == {"nut"}
    assert not summary.interrupted
    settle()


@pytest.mark.parametrize("policy", list(Policy))
def test_a_source_that_fails_is_reported_after_its_frames_were_written(policy):
    source, sink = FakeSource(10, error_at=5, pause=0.01), FakeSink()
    pipeline = Pipeline(source, FakeDetector(), [sink], PipelineConfig(policy))
    with pytest.raises(SourceError, match="unplugged"):
        pipeline.run()
    if policy is Policy.WAIT:
        assert sink.indices == [0, 1, 2, 3, 4]
        assert pipeline.live.summary().frames == 5
    else:  # on a busy machine a frame may go by, but never the last
        assert sink.indices == sorted(set(sink.indices)) and sink.indices[-1] == 4
    assert sink.closed == 1
    settle()


@pytest.mark.parametrize("policy", list(Policy))
def test_a_detector_that_fails_stops_everything(policy):
    source, sink = FakeSource(None), FakeSink(pause=0.001)
    with pytest.raises(RuntimeError, match="engine lost"):
        Pipeline(source, FakeDetector(error_at=3), [sink], PipelineConfig(policy)).run()
    settle()
    assert sink.closed == 1
    assert source.closed_by == "kanoclip-source"


@pytest.mark.parametrize("policy", list(Policy))
def test_a_sink_that_fails_stops_everything_although_others_are_slow(policy):
    source, broken, slow = FakeSource(None), FakeSink(error_at=2), FakeSink("slow", pause=0.02)
    with pytest.raises(SinkError, match="No space left"):
        Pipeline(source, FakeDetector(), [slow, broken], PipelineConfig(policy)).run()
    settle()
    assert broken.indices == [0, 1] or policy is Policy.DROP_OLDEST
    assert slow.closed == broken.closed == 1
    assert source.closed_by == "kanoclip-source"


def test_a_sink_that_fails_when_it_closes_is_reported():
    with pytest.raises(SinkError, match=r"out\.mp4"):
        Pipeline(FakeSource(3), FakeDetector(), [FakeSink(close_error=True)], WAIT).run()
    settle()


def test_an_observer_sees_every_result_in_order():
    seen = []
    Pipeline(FakeSource(5, bad={2}), FakeDetector(), [], WAIT, observer=seen.append).run()
    assert [r.index if isinstance(r, BadFrame) else r[0].index for r in seen] == [0, 1, 2, 3, 4]


def test_a_failing_tick_in_the_main_thread_ends_the_run():
    def tick(progress):
        raise ValueError("status line")

    sink = FakeSink()
    with pytest.raises(ValueError, match="status line"):
        Pipeline(FakeSource(None), FakeDetector(), [sink], WAIT).run(tick)
    settle()
    assert sink.closed == 1


def test_the_screen_lives_in_the_main_thread_and_its_close_key_ends_the_run():
    screen, sink = FakeScreen(quit_after=5), FakeSink()
    summary = Pipeline(FakeSource(None, pause=0.002), FakeDetector(), [sink], WAIT, screen=screen).run()
    assert summary.interrupted
    assert screen.threads == {threading.main_thread()}
    assert screen.closed == 1
    assert len(sink.indices) == summary.frames >= len(screen.indices) >= 1
    settle()


def test_a_held_screen_stays_after_the_last_frame():
    screen = FakeScreen(quit_after=20)
    config = PipelineConfig(Policy.WAIT, hold_screen=True)
    Pipeline(FakeSource(1), FakeDetector(), [], config, screen=screen).run()
    assert screen.polls == 20
    assert screen.indices == [0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_frame_and_flushes(number):
    sink, before = FakeSink(pause=0.005), signal.getsignal(number)
    sent = []

    def send_once(progress):  # while it runs: by a clock it could come before, and end the tests themselves
        if progress.frames and not sent:
            sent.append(number)
            os.kill(os.getpid(), number)

    summary = Pipeline(FakeSource(None), FakeDetector(pause=0.001), [sink], WAIT).run(send_once)
    assert summary.interrupted
    assert len(sink.indices) == summary.frames > 0
    assert sink.closed == 1
    assert signal.getsignal(number) == before
    settle()


def test_a_camera_that_blocks_does_not_hold_up_the_end():
    class Stuck(FakeSource):
        def frames(self):
            yield from super().frames()
            release.wait(20)

    release = threading.Event()
    pipeline = Pipeline(Stuck(3), FakeDetector(), [FakeSink()], DROP)
    threading.Timer(0.2, pipeline.stop).start()
    started = time.monotonic()
    pipeline.run()
    assert time.monotonic() - started < 5
    release.set()
    settle()


def test_progress_reports_latency_and_rate():
    seen = []
    summary = Pipeline(FakeSource(40, pause=0.005), FakeDetector(pause=0.005), [], WAIT).run(seen.append)
    last = seen[-1]
    assert 0 < last.frames <= 40
    assert 5 <= last.latency_p50 <= last.latency_p95 < 1e3 * summary.wall_s  # which a busy machine makes longer
    assert 0 < last.fps < 250
    assert last.last_score is not None


class Uneven(FakeDetector):
    """Frames take different times, so that workers overtake one another; remembers how many were at it at once."""

    def __init__(self, **options):
        super().__init__(**options)
        self.inside = self.most = 0
        self._lock = threading.Lock()

    def judge_one(self, frame, class_name):
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        time.sleep(0.008 if frame[0, 0, 0] % 3 == 0 else 0.001)
        try:
            return super().judge_one(frame, class_name)
        finally:
            with self._lock:
                self.inside -= 1


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_work_side_by_side_and_results_keep_their_order(workers):
    detector, sink, seen = Uneven(), FakeSink(), []
    config = PipelineConfig(Policy.WAIT, workers=workers)
    pipeline = Pipeline(FakeSource(60, bad={0, 5, 6, 59}), detector, [sink], config, observer=seen.append)
    summary = pipeline.run()
    assert detector.most == workers
    assert sink.indices == [i for i in range(60) if i not in {0, 5, 6, 59}]
    assert sink.bad == [0, 5, 6, 59]
    assert [r.index if isinstance(r, BadFrame) else r[0].index for r in seen] == list(range(60))
    assert (summary.frames, summary.skipped, summary.dropped) == (56, 4, 0)
    settle()


def test_lanes_score_no_more_frames_than_asked_for():
    for limit in (1, 2, 7):
        detector, sink = Uneven(), FakeSink()
        config = PipelineConfig(Policy.WAIT, max_frames=limit, workers=3)
        assert Pipeline(FakeSource(None, bad={1}), detector, [sink], config).run().frames == limit
        assert detector.calls == limit == len(sink.indices)
        settle()


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("where", ["detector", "sink", "observer", "source"])
def test_an_error_ends_every_worker(workers, where):
    def observe(result):
        if where == "observer":
            raise RuntimeError("observer")

    pipeline = Pipeline(
        FakeSource(None, error_at=20 if where == "source" else None),
        Uneven(error_at=10 if where == "detector" else None),
        [FakeSink(error_at=10 if where == "sink" else None, pause=0.002)],
        PipelineConfig(Policy.WAIT, workers=workers, sink_capacity=1),
        observer=observe,
    )
    with pytest.raises((RuntimeError, SinkError, SourceError)):
        pipeline.run()
    settle()


def test_a_stop_lets_every_lane_finish_its_frame():
    detector, sink = Uneven(), FakeSink()
    pipeline = Pipeline(FakeSource(None), detector, [sink], PipelineConfig(Policy.WAIT, workers=2))
    threading.Timer(0.1, pipeline.stop).start()
    summary = pipeline.run()
    assert summary.interrupted
    assert sink.indices == list(range(detector.calls)) and detector.calls > 5
    settle()


def test_where_nothing_is_dropped_frames_are_resized_by_the_thread_that_reads_them():
    waits, drops = FakeDetector(), FakeDetector()
    Pipeline(FakeSource(5), waits, [], PipelineConfig(Policy.WAIT, workers=2)).run()
    Pipeline(FakeSource(5), drops, [], DROP).run()
    assert waits.preparing == {"kanoclip-source"}
    assert drops.preparing == {"kanoclip-detector-0"}, "a dropped frame must not cost a resize"


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_take_what_is_there_and_lose_nothing(workers):
    detector, sink = FakeDetector(pause=0.001), FakeSink()
    config = PipelineConfig(Policy.WAIT, max_frames=45, workers=workers, batch=8)
    summary = Pipeline(FakeSource(None, bad={0, 5, 6, 21}), detector, [sink], config).run()
    expected = [i for i in range(49) if i not in {0, 5, 6, 21}]
    assert sink.indices == expected and sink.bad == [0, 5, 6, 21]
    assert summary.frames == detector.calls == 45
    assert max(detector.runs) > 4, "a slow detector finds more than one waiting"
    assert all(1 <= size <= 8 for size in detector.runs)
    settle()


def test_a_batch_does_not_wait_to_be_full():
    seen = []
    source = FakeSource(6, pause=0.05)
    started = time.monotonic()
    config = PipelineConfig(Policy.WAIT, batch=8)
    Pipeline(source, FakeDetector(), [], config, observer=lambda _: seen.append(time.monotonic() - started)).run()
    assert seen[0] < 0.1 and len(seen) == 6


class Halving(FakeDetector):
    def prepare(self, frame, class_name=None, size=None):
        return replace(super().prepare(frame, class_name, size), image=frame[::2, ::2])


def test_the_full_image_goes_no_further_than_it_is_shown():
    def frames_seen(*sinks, policy=Policy.WAIT):
        seen = []
        Pipeline(FakeSource(4), Halving(), list(sinks), PipelineConfig(policy), observer=seen.append).run()
        return [(frame.image.shape, frame.full_size) for frame, _ in seen]

    text = FakeSink()
    text.shows = False
    assert frames_seen(text) == [((2, 2, 3), (4, 4))] * 4
    assert frames_seen(text, FakeSink()) == [((4, 4, 3), None)] * 4


def test_a_frame_that_cannot_be_scored_ends_the_run_after_those_before_it():
    class Picky(FakeDetector):
        def prepare(self, frame, class_name=None, size=None):
            if frame[0, 0, 0] == 3:
                raise FrameError("frame has dtype float32")
            return super().prepare(frame, class_name, size)

    for policy in Policy:
        sink = FakeSink()
        with pytest.raises(FrameError, match="float32"):
            Pipeline(FakeSource(None, pause=0.01), Picky(), [sink], PipelineConfig(policy)).run()
        assert sink.indices == [0, 1, 2] or policy is Policy.DROP_OLDEST
        settle()


def test_processor_time_of_other_threads_counts_as_capture():
    class Elsewhere(FakeSource):
        def frames(self):
            for frame in super().frames():
                yield replace(frame, capture_cpu_ms=7.0)

    summary = Pipeline(Elsewhere(5), FakeDetector(), [], WAIT).run()
    assert 7.0 <= next(stage.cpu for stage in summary.stages if stage.name == "capture") < 9.0


@pytest.mark.parametrize("workers", [1, 3])
def test_the_alarm_is_the_stream_s_and_follows_the_frames_order(workers):
    """Frames 128 to 255 are anomalous: with 3 of 4 it is raised two later, and cleared two after the last."""
    seen = []
    config = PipelineConfig(Policy.WAIT, workers=workers, alarm=AlarmRule(3, 4))
    Pipeline(FakeSource(300, bad={127}), FakeDetector(), [], config, observer=seen.append).run()
    states = [(frame.index, found) for frame, found in (r for r in seen if not isinstance(r, BadFrame))]
    assert [index for index, found in states if found.is_anomalous] == list(range(128, 256))
    assert [index for index, found in states if found.alarm] == list(range(130, 257))


def test_without_a_rule_the_alarm_is_the_verdict():
    seen = []
    Pipeline(FakeSource(200), FakeDetector(), [], WAIT, observer=seen.append).run()
    assert all(found.alarm is found.is_anomalous for _, found in seen)


class Hanging(FakeSink):
    """Hangs in its Nth write, or when it is closed."""

    def __init__(self, *, write_at=None, seconds=20.0):
        super().__init__("hanging")
        self.write_at, self.seconds, self.released = write_at, seconds, threading.Event()

    def write(self, frame, detection):
        if len(self.indices) == self.write_at:
            self.released.wait(self.seconds)
        super().write(frame, detection)

    def close(self):
        if self.write_at is None:
            self.released.wait(self.seconds)
        super().close()


@pytest.fixture
def short_grace(monkeypatch):
    monkeypatch.setattr(sink_worker, "SINK_GRACE_S", 0.4)


@pytest.mark.parametrize("write_at", [None, 3])
def test_a_sink_that_hangs_does_not_hold_up_the_end_of_a_live_run(short_grace, caplog, write_at):
    hanging, other = Hanging(write_at=write_at), FakeSink("other")
    pipeline = Pipeline(FakeSource(None, pause=0.002, live=True), FakeDetector(), [hanging, other], DROP)
    threading.Timer(0.3, pipeline.stop).start()
    started = time.monotonic()
    summary = pipeline.run()
    assert 0.6 < time.monotonic() - started < 3
    assert summary.frames > 20 and other.closed == 1 and other.indices[-1] == summary.frames + summary.dropped - 1
    assert [record.message for record in caplog.records] == [
        "hanging: did not finish within 0.4 s and was left behind; its output is incomplete"
    ]
    hanging.released.set()
    settle()


def test_a_stop_ends_a_run_that_waits_for_a_sink_that_hangs(short_grace):
    hanging, other = Hanging(write_at=3), FakeSink("other")
    pipeline = Pipeline(FakeSource(None), FakeDetector(), [hanging, other], PipelineConfig(Policy.WAIT, workers=2))
    threading.Timer(0.3, pipeline.stop).start()
    started = time.monotonic()
    with pytest.raises(SinkError, match="hanging: did not finish"):
        pipeline.run()
    assert time.monotonic() - started < 3
    assert other.closed == 1
    hanging.released.set()
    settle()


def test_where_nothing_may_be_lost_a_sink_has_all_the_time_that_it_takes(short_grace):
    slow = Hanging(seconds=1.2)
    summary = Pipeline(FakeSource(10), FakeDetector(), [slow], WAIT).run()
    assert slow.closed == 1 and slow.indices == list(range(10)) and not summary.interrupted


def test_what_a_sink_loses_by_itself_and_what_it_costs_elsewhere_are_told():
    class Queueing(FakeSink):
        cpu_ms = 0.0

        @property
        def dropped(self):
            return len(self.indices) // 2

        def write(self, frame, detection):
            super().write(frame, detection)
            self.cpu_ms += 5.0

    summary = Pipeline(FakeSource(10), FakeDetector(), [Queueing("mqtt")], WAIT).run()
    assert summary.sink_dropped == {"mqtt": 5}
    assert next(stage.cpu for stage in summary.stages if stage.name == "mqtt") == pytest.approx(5.0, abs=0.5)


def test_latency_and_what_was_delivered_are_told_while_it_runs():
    seen = []
    Pipeline(FakeSource(60, pause=0.002, bad={3}), FakeDetector(pause=0.002), [], WAIT).run(seen.append)
    last = seen[-1]
    (source,) = last.sources
    assert last.latency_p50 <= last.latency_p95 <= last.latency_p99
    assert source.name == "fake" and source.frames == last.frames and source.delivered >= source.frames
    assert 0 <= source.last_frame_age_s < 1 and source.last_at == pytest.approx(time.time(), abs=2)
    assert source.fps == pytest.approx(last.fps, rel=0.5) and source.alarm in (True, False)
