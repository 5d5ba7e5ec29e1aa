"""Several sources in one stream: order, fairness, counts, alarms, and one that fails beside others that do not."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kanoclip.runtime.detect.alarm import AlarmRule
from kanoclip.runtime.detect.preprocess import Prepared
from kanoclip.runtime.errors import FrameError, SettingsError, SinkError, SourceError
from kanoclip.runtime.sinks import BaseSink, SinkFactory
from kanoclip.runtime.sources import BaseSource
from kanoclip.runtime.sources.several import NamedSource, together
from kanoclip.runtime.stream.config import PipelineConfig
from kanoclip.runtime.stream.pipeline import Pipeline
from kanoclip.runtime.system.queues import Policy
from kanoclip.runtime.types import BadFrame, Detection, Frame, Timings

pytestmark = pytest.mark.timeout(60)


class Camera(BaseSource):
    """Numbered frames; the value of the pixels is the source's mark."""

    fps = None
    root = None

    def __init__(self, name, mark, count, *, live, pause=0.0, bad=(), error_at=None, scores=None):
        self.name, self.mark, self.count, self.live = name, mark, count, live
        self._pause, self._bad, self._error_at, self._scores = pause, bad, error_at, scores
        self.read = 0
        self.taken_at = {}
        self.closed = 0

    def frames(self):
        index = 0
        while self.count is None or index < self.count:
            if index == self._error_at:
                raise SourceError(f"{self.name}: unplugged")
            self.read += 1
            if index in self._bad:
                yield BadFrame(index, self.name, "broken")
            else:
                self.taken_at[index] = time.time()
                image = np.full((4, 4, 3), self.mark, np.uint8)
                if self._scores is not None:
                    image[0, 0, 0] = self._scores[index]
                yield Frame(index, self.name, self.taken_at[index], image, 1.0)
            if self._pause:
                time.sleep(self._pause)
            index += 1

    def close(self):
        self.closed += 1


class Detector:
    def __init__(self, *, pause=0.0):
        self._pause, self.runs = pause, []

    def prepare(self, frame, class_name=None, size=None):
        if frame[1, 1, 0] == 250:
            raise FrameError("belt.json was drawn on an image of another shape")
        return Prepared(frame, *(size or frame.shape[:2]), 0.0, 0.0)

    def submit(self, frames, class_name=None):
        return lambda: self.infer(frames, class_name)

    def infer(self, frames, class_name):
        time.sleep(self._pause)
        self.runs.append([int(frame.image[1, 1, 0]) for frame in frames])
        return [
            Detection(
                score=float(frame.image[0, 0, 0]) / 255,
                map=np.zeros((2, 2), np.float32),
                is_anomalous=frame.image[0, 0, 0] >= 128,
                threshold=0.5,
                regions=(),
                class_name=class_name or "object",
                timings=Timings(0.0, 0.0, 0.0, 0.0, 0.0),
            )
            for frame in frames
        ]


class Collect(BaseSink):
    name = "collect"
    shows = True

    def __init__(self, pause=0.0):
        self._pause, self.by_stream = pause, defaultdict(list)

    def write(self, frame, detection):
        time.sleep(self._pause)
        self.by_stream[frame.stream].append((frame, detection))

    def skip(self, bad):
        self.by_stream[bad.stream].append((bad, None))

    def close(self):
        pass

    def indices(self, stream):
        return [item.index for item, _ in self.by_stream[stream]]


def settle():
    deadline = time.monotonic() + 5
    while any(t.name.startswith("kanoclip-") for t in threading.enumerate()):
        assert time.monotonic() < deadline, threading.enumerate()
        time.sleep(0.01)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    workers=st.integers(1, 3),
    batch=st.integers(1, 4),
    bad=st.sets(st.integers(0, 29), max_size=5),
)
def test_files_lose_nothing_and_each_keeps_its_order_and_its_times(counts, workers, batch, bad):
    cameras = [Camera(f"video {n}", n, count, live=False, bad=bad) for n, count in enumerate(counts)]
    sources, sink = together(cameras), Collect()
    summary = Pipeline(sources, Detector(), [sink], PipelineConfig(Policy.WAIT, workers=workers, batch=batch)).run()
    for camera, source, told in zip(cameras, sources, summary.sources, strict=True):
        stream = "" if len(counts) == 1 else source.name
        assert sink.indices(stream) == list(range(camera.count))
        for item, detection in sink.by_stream[stream]:
            if detection is not None:
                assert item.captured_at == camera.taken_at[item.index]
                assert item.image[1, 1, 0] == camera.mark, "the image of another source"
                assert item.source == camera.name
        skipped = len([index for index in bad if index < camera.count])
        assert (told.name, told.frames, told.skipped, told.dropped) == (
            camera.name, camera.count - skipped, skipped, 0,
        )  # fmt: skip
        assert told.delivered == camera.count and told.error is None
        assert camera.closed == 1
    assert (summary.frames, summary.skipped) == (
        sum(told.frames for told in summary.sources),
        sum(told.skipped for told in summary.sources),
    )
    settle()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_fast_camera_never_starves_a_slow_one(workers):
    """The fast one delivers all the time; of the slow one, which the engine could keep up with, none is lost."""
    fast = Camera("fast", 1, None, live=True, pause=0.0005)
    slow = Camera("slow", 2, 25, live=True, pause=0.04)
    sink = Collect()

    def watch(result):
        if (result[0].stream, result[0].index) == ("slow", 24):
            pipeline.stop()

    config = PipelineConfig(Policy.DROP_OLDEST, workers=workers)
    pipeline = Pipeline(together([fast, slow]), Detector(pause=0.008), [sink], config, observer=watch)
    summary = pipeline.run()
    told = {source.name: source for source in summary.sources}
    assert told["slow"].frames == 25 and told["slow"].dropped == 0
    assert sink.indices("slow") == list(range(25))
    assert told["fast"].frames > 40, "what is left is the fast one's"
    assert told["fast"].dropped > told["fast"].frames
    assert sink.indices("fast") == sorted(set(sink.indices("fast")))
    assert all(frame.captured_at == fast.taken_at[frame.index] for frame, _ in sink.by_stream["fast"])
    lost_at_the_stop = told["fast"].delivered - told["fast"].frames - told["fast"].dropped
    assert 0 <= lost_at_the_stop <= 1, "the one that waited"
    settle()


def test_equal_cameras_get_equal_shares_whatever_their_number():
    cameras = [Camera(f"c{n}", n, None, live=True, pause=0.001) for n in range(5)]
    pipeline = Pipeline(together(cameras), Detector(pause=0.004), [], PipelineConfig(Policy.DROP_OLDEST))
    threading.Timer(1.0, pipeline.stop).start()
    frames = [source.frames for source in pipeline.run().sources]
    assert min(frames) > 15 and max(frames) - min(frames) <= 3


def test_frames_of_several_cameras_are_scored_in_one_batch():
    cameras = [Camera(f"c{n}", n, 40, live=True, pause=0.01) for n in range(3)]
    detector = Detector(pause=0.015)
    Pipeline(together(cameras), detector, [], PipelineConfig(Policy.DROP_OLDEST, batch=3)).run()
    sizes = Counter(len(run) for run in detector.runs)
    assert sizes[3] > 10, sizes
    assert all(len(set(run)) == len(run) for run in detector.runs), "two of one camera: the older one is of no use"


def test_one_that_fails_leaves_the_others_to_go_on(caplog):
    cameras = [
        Camera("a", 1, 60, live=True, pause=0.005),
        Camera("b", 2, 60, live=True, pause=0.005, error_at=3),
        Camera("c", 3, 10, live=True, pause=0.005),
    ]
    sink = Collect()
    with caplog.at_level(logging.WARNING, "kanoclip.runtime"):
        summary = Pipeline(together(cameras), Detector(), [sink], PipelineConfig(Policy.DROP_OLDEST)).run()
    assert [source.error for source in summary.sources] == [None, "b: unplugged", None]
    assert sink.indices("a")[-1] == 59 and sink.indices("c")[-1] == 9 and sink.indices("b")[-1] == 2
    assert [record.message for record in caplog.records] == ["b: unplugged; the other sources go on"]
    assert all(camera.closed == 1 for camera in cameras)
    settle()


def test_the_last_one_that_fails_ends_the_run(caplog):
    cameras = [Camera("a", 1, 60, live=False, error_at=2), Camera("b", 2, 60, live=False, pause=0.01, error_at=4)]
    with caplog.at_level(logging.WARNING, "kanoclip.runtime"):
        summary = Pipeline(together(cameras), Detector(), [], PipelineConfig(Policy.WAIT)).run()
    assert [source.error for source in summary.sources] == ["a: unplugged", "b: unplugged"]
    assert [record.message for record in caplog.records][-1] == "b: unplugged"
    assert summary.frames == 6
    settle()


@pytest.mark.parametrize("policy", list(Policy))
def test_frames_that_do_not_suit_end_their_source_only(policy, caplog):
    live = policy is Policy.DROP_OLDEST
    cameras = [Camera("a", 1, 30, live=live, pause=0.005), Camera("b", 250, None, live=live, pause=0.005)]
    with caplog.at_level(logging.WARNING, "kanoclip.runtime"):
        summary = Pipeline(together(cameras), Detector(), [Collect()], PipelineConfig(policy)).run()
    assert summary.sources[0].frames + summary.sources[0].dropped == 30
    assert summary.sources[1].frames == 0 and "belt.json" in summary.sources[1].error
    assert len(caplog.records) == 1, "said once"
    settle()


def test_each_has_an_alarm_of_its_own():
    """Anomalies come in turns, so that two together have three in a row and neither by itself has."""
    one = Camera("one", 1, 40, live=False, scores=[200 if n % 2 == 0 else 0 for n in range(40)])
    other = Camera("other", 2, 40, live=False, scores=[200 if 10 <= n < 20 else 0 for n in range(40)])
    sink = Collect()
    Pipeline(together([one, other]), Detector(), [sink], PipelineConfig(Policy.WAIT, alarm=AlarmRule(3, 3))).run()
    assert not any(found.alarm for _, found in sink.by_stream["one"])
    assert [f.index for f, found in sink.by_stream["other"] if found.alarm] == list(range(12, 20))


def test_a_slow_sink_drops_of_each_source_its_own_oldest():
    fast = Camera("fast", 1, None, live=True, pause=0.001)
    slow = Camera("slow", 2, 12, live=True, pause=0.09)
    sink = Collect(pause=0.02)
    pipeline = Pipeline(together([fast, slow]), Detector(), [sink], PipelineConfig(Policy.DROP_OLDEST))
    threading.Timer(1.4, pipeline.stop).start()
    summary = pipeline.run()
    assert summary.sink_dropped["collect"] > 30
    assert len(sink.indices("slow")) >= 11, "the fast one's results must not push the slow one's out"


def test_a_limit_counts_all_of_them():
    cameras = [Camera(f"c{n}", n, None, live=False) for n in range(3)]
    summary = Pipeline(together(cameras), Detector(), [], PipelineConfig(Policy.WAIT, max_frames=20, batch=4)).run()
    assert summary.frames == 20 == sum(source.frames for source in summary.sources)
    settle()


def test_a_source_is_woken_at_the_end():
    class Waiting(Camera):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.interrupted = threading.Event()

        def frames(self):
            yield from super().frames()
            assert self.interrupted.wait(20)

        def interrupt(self):
            self.interrupted.set()

    waiting, other = Waiting("w", 1, 2, live=True, pause=0.01), Camera("o", 2, None, live=True, pause=0.01)
    pipeline = Pipeline(together([waiting, other]), Detector(), [], PipelineConfig(Policy.DROP_OLDEST))
    threading.Timer(0.3, pipeline.stop).start()
    started = time.monotonic()
    pipeline.run()
    assert time.monotonic() - started < 1.5
    assert isinstance(together([waiting, other])[0], NamedSource)
    settle()


class Stubborn(Collect):
    """Hangs for ever in its first write."""

    name = "images"

    def __init__(self, released):
        super().__init__()
        self.released = released

    def write(self, frame, detection):
        self.released.wait(20)


@pytest.mark.parametrize("policy", list(Policy))
def test_each_source_s_sink_may_fail_alone_and_they_are_counted_as_one(policy):
    """One hangs, one fails at its start: the third gets all of its source's results, and the run does not wait."""
    released, said, good = threading.Event(), [], Collect()

    def refuse():
        raise SinkError("b.mp4: the disk is full")

    makers = {"a": lambda: Stubborn(released), "b": refuse, "c": lambda: good}
    sinks = [
        SinkFactory(make, "images", True, stream, notify=said.append, patience_s=0.2, grace_s=0.2)
        for stream, make in makers.items()
    ]
    cameras = [Camera(name, mark, 40, live=policy is Policy.DROP_OLDEST, pause=0.01) for mark, name in enumerate("abc")]
    started = time.monotonic()
    summary = Pipeline(together(cameras), Detector(), sinks, PipelineConfig(policy)).run()
    assert time.monotonic() - started < 5
    frames = {source.name: source.frames for source in summary.sources}
    assert set(good.by_stream) == {"c"} and len(good.indices("c")) == frames["c"]
    assert [stage.name for stage in summary.stages].count("images") == 1
    assert frames["a"] + frames["b"] - 6 <= summary.sink_dropped["images"] <= frames["a"] + frames["b"]
    assert sorted(line.partition(";")[0] for line in said) == [
        "images: b.mp4: the disk is full",
        "images: could not be finished within 0.2 s and is left as it is",
        "images: no answer for 0.2 s",
    ]
    released.set()
    settle()


def test_what_no_later_try_would_mend_ends_the_run_at_its_start():
    def refuse():
        raise SettingsError("mqtt: no such port")

    camera = Camera("a", 1, None, live=True, pause=0.01)
    with pytest.raises(SettingsError, match="no such port"):
        Pipeline(camera, Detector(), [SinkFactory(refuse, "mqtt", False)], PipelineConfig(Policy.DROP_OLDEST)).run()
    assert camera.closed == 1
    settle()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_learner_gets_every_scored_frame_of_every_source(workers):
    cameras = [Camera(f"video {n}", n, 12, live=False, bad={3, 7}) for n in range(3)]
    pipeline = Pipeline(together(cameras), Detector(), [Collect()], PipelineConfig(Policy.WAIT, workers=workers))
    seen, lock = [], threading.Lock()

    class Learner:
        def look(self, name, frame, image, class_name):
            with lock:
                seen.append((name, int(frame.image[1, 1, 0])))

    pipeline.live.learn_by(Learner())
    with pytest.raises(FrameError, match="video 1: no frame has been scored yet"):
        pipeline.live.latest("video 1")
    assert pipeline.run().frames == 30
    assert sorted(seen) == sorted((f"video {n}, frame {i}", n) for n in range(3) for i in range(12) if i not in (3, 7))
    assert pipeline.live.latest("video 1").name == "video 1, frame 11"
    assert pipeline.live.latest().name in {f"video {n}, frame 11" for n in range(3)}
    with pytest.raises(FrameError, match="unknown source 'video 9': this stream has video 0, video 1, video 2"):
        pipeline.live.latest("video 9")
