"""One thread with two batches in flight: which begins when, what is waited for, and what an error leaves."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from kanoclip.runtime.detect.alarm import EVERY_FRAME
from kanoclip.runtime.detect.preprocess import Prepared
from kanoclip.runtime.errors import FrameError
from kanoclip.runtime.sinks import BaseSink
from kanoclip.runtime.sources import BaseSource
from kanoclip.runtime.stream.config import Criteria, PipelineConfig
from kanoclip.runtime.stream.inference_worker import FrameTaker, InferenceWorker
from kanoclip.runtime.stream.pipeline import Pipeline
from kanoclip.runtime.stream.run_state import Job
from kanoclip.runtime.system.queues import Mailbox, MailboxClosedError, MailboxEmptyError, Policy
from kanoclip.runtime.types import BadFrame, Detection, Frame, Timings

NOTHING = "nothing waits"
"""What a taker finds where it may not wait for a frame."""


def frame(index):
    return Frame(index, "x", 1.7e9, np.full((4, 4, 3), index, np.uint8), 1.0)


def detection(prepared, threshold=0.5):
    score = float(prepared.image[0, 0, 0]) / 255
    timings = Timings(1.0, 1.0, 1.0, 1.0, 1.0)
    return Detection(score, np.zeros((2, 2), np.float32), score >= threshold, threshold, (), "nut", timings)


class Detector:
    """Notes what it is asked, in order; a batch is named by its first frame."""

    def __init__(self):
        self.calls, self.refuse, self.threshold = [], None, 0.5

    def prepare(self, image, class_name=None, size=None):
        if image[0, 0, 0] == self.refuse:
            raise FrameError("of another shape")
        return Prepared(image, 4, 4, 1.0, 1.0)

    def submit(self, frames, class_name=None):
        first, threshold = int(frames[0].image[0, 0, 0]), self.threshold
        self.calls.append(("submit", first))

        def collect():
            self.calls.append(("collect", first))
            return [detection(one, threshold) for one in frames]

        return collect


class Script:
    """Gives a worker what a taker would: numbers of frames, NOTHING, or an exception, and None at the end."""

    def __init__(self, detector, *given):
        self.detector, self.given, self.number, self.waits = detector, list(given), 0, []

    def take(self, *, wait):
        self.waits.append(wait)
        given = self.given.pop(0) if self.given else None
        if given is NOTHING:
            assert not wait or self.given
            raise MailboxEmptyError
        if isinstance(given, Exception):
            raise given
        if given is None:
            return None
        indices = given if isinstance(given, list) else [given]
        number, self.number = self.number, self.number + len(indices)
        return number, [Job(0, frame(index), None, 0.0) for index in indices]


def score(detector, *given, in_flight=2):
    """What one worker hands on, the numbers with it, and the error that it ended with."""
    handed, errors = [], []
    run = SimpleNamespace(
        stopped=threading.Event(), change=0, detector=detector, learner=None, sources=[object()],
        config=PipelineConfig(Policy.WAIT, in_flight=in_flight), fail=errors.append,
    )  # fmt: skip
    run.steady = lambda: (run.change, Criteria("nut", EVERY_FRAME))
    run.prepare = lambda frame: detector.prepare(frame.image)

    def put(number, answer):
        detector.calls.append(("hand on", answer[0].item.index))
        handed.append((number, answer[2]))

    run.results = SimpleNamespace(put=put)
    script = Script(detector, *given)
    InferenceWorker(run, script, 0).run()
    return handed, errors, script, run


def test_the_next_frame_begins_before_the_one_before_it_is_waited_for():
    detector = Detector()
    handed, errors, script, _ = score(detector, 1, 2, 3)
    assert detector.calls == [
        ("submit", 1), ("submit", 2), ("collect", 1), ("hand on", 1), ("submit", 3), ("collect", 2), ("hand on", 2),
        ("collect", 3), ("hand on", 3),
    ]  # fmt: skip
    assert [number for number, _ in handed] == [0, 1, 2] and not errors
    assert script.waits == [True, False, False, False]


def test_a_slow_source_waits_for_nothing():
    detector = Detector()
    _, errors, script, _ = score(detector, 1, NOTHING, NOTHING, 2, NOTHING, 3)
    one_by_one = [(what, number) for number in (1, 2, 3) for what in ("submit", "collect", "hand on")]
    assert detector.calls == one_by_one and not errors
    # Nothing in flight: it waits for a frame. One in flight: it looks, and does not wait.
    assert script.waits == [True, False, True, True, False, True, False]


def test_with_one_in_flight_nothing_begins_early():
    detector = Detector()
    _, _, script, _ = score(detector, 1, 2, 3, in_flight=1)
    assert [what for what, _ in detector.calls] == ["submit", "collect", "hand on"] * 3
    assert all(script.waits)


def test_an_error_in_the_next_frame_leaves_the_one_in_flight_its_verdict():
    detector = Detector()
    detector.refuse = 2
    handed, errors, _, _ = score(detector, 1, 2, 3)
    assert [number for number, _ in handed] == [0] and "of another shape" in str(errors[0])
    detector = Detector()
    detector.submit, real = lambda frames, name=None: fails(frames) or real(frames, name), detector.submit

    def fails(frames):
        if frames[0].image[0, 0, 0] == 2:
            raise RuntimeError("engine lost")

    handed, errors, _, _ = score(detector, 1, 2, 3)
    assert [number for number, _ in handed] == [0] and str(errors[0]) == "engine lost" and len(errors) == 1


@pytest.mark.parametrize("end", [None, MailboxClosedError()])
def test_what_is_in_flight_at_the_end_is_handed_on(end):
    handed, errors, _, _ = score(Detector(), 1, 2, end)
    assert [number for number, _ in handed] == [0, 1] and not errors


def test_what_is_in_flight_at_a_stop_is_handed_on():
    detector = Detector()
    real = Script.take

    class Stopping(Script):
        def take(self, *, wait):
            if len(self.waits) == 1:
                self.run.stopped.set()
            return real(self, wait=wait)

    handed = []
    run = SimpleNamespace(
        stopped=threading.Event(), change=0, detector=detector, learner=None, sources=[object()],
        config=PipelineConfig(Policy.WAIT, in_flight=2), fail=handed.append, steady=lambda: (0, Criteria()),
        prepare=lambda frame: detector.prepare(frame.image),
        results=SimpleNamespace(put=lambda number, answer: handed.append(number)),
    )  # fmt: skip
    script = Stopping(detector, 1, 2, 3)
    script.run = run
    InferenceWorker(run, script, 0).run()
    assert handed == [0, 1] and script.given == [3]


def test_thresholds_that_change_meanwhile_hold_for_what_is_in_flight():
    detector = Detector()
    learned = []

    class Learner:
        def look(self, name, prepared, image, class_name):
            learned.append(int(prepared.image[0, 0, 0]))

    handed, errors = [], []
    run = SimpleNamespace(
        stopped=threading.Event(), change=0, detector=detector, learner=Learner(), sources=[SimpleNamespace(root=None)],
        config=PipelineConfig(Policy.WAIT, in_flight=2), fail=errors.append, name_of=lambda source, frame: "x",
        prepare=lambda frame: detector.prepare(frame.image),
    )  # fmt: skip
    run.steady = lambda: (run.change, Criteria())

    def put(number, answer):
        handed.append((number, answer[2][1].threshold))
        if number == 0:  # with the second one in flight
            run.change, detector.threshold = 1, 0.9

    run.results = SimpleNamespace(put=put)
    InferenceWorker(run, Script(detector, 1, 2, 3), 0).run()
    assert handed == [(0, 0.5), (1, 0.9), (2, 0.9)] and not errors
    assert detector.calls.count(("submit", 2)) == 2 and detector.calls.count(("submit", 3)) == 1
    assert learned == [1, 2, 3]


def taker(policy=Policy.WAIT, batch=1, **more):
    run = SimpleNamespace(
        config=PipelineConfig(policy, batch=batch, in_flight=2, **more), frames=Mailbox(8, policy),
        going=threading.Event(), stopped=threading.Event(), waits=policy is Policy.WAIT,
    )  # fmt: skip
    run.going.set()
    return run, FrameTaker(run)


def test_without_waiting_a_whole_batch_is_taken_or_nothing():
    run, take = taker(batch=3)
    for index in range(5):
        run.frames.put(Job(0, frame(index), None, 0.0))
    assert [job.item.index for job in take.take(wait=True)[1]] == [0, 1, 2]
    with pytest.raises(MailboxEmptyError):
        take.take(wait=False)
    run.frames.put(Job(0, BadFrame(5, "x", "damaged"), None, 0.0))
    number, jobs = take.take(wait=False)
    assert (number, [job.item.index for job in jobs]) == (3, [3, 4, 5])
    run.frames.put(Job(0, frame(6), None, 0.0))
    run.frames.close()
    with pytest.raises(MailboxEmptyError):  # what is in flight comes first, then what is left
        take.take(wait=False)
    assert take.take(wait=True)[0] == 6
    for wait in (False, True):
        with pytest.raises(MailboxClosedError):
            take.take(wait=wait)


def test_a_pause_does_not_hold_up_what_is_in_flight():
    run, take = taker()
    run.frames.put(Job(0, frame(0), None, 0.0))
    run.going.clear()
    with pytest.raises(MailboxEmptyError):
        take.take(wait=False)
    threading.Timer(0.2, run.going.set).start()
    assert take.take(wait=True)[0] == 0


def test_the_last_frames_of_a_limit_are_a_whole_batch():
    run, take = taker(batch=3, max_frames=5)
    for index in range(8):
        run.frames.put(Job(0, frame(index), None, 0.0))
    assert len(take.take(wait=True)[1]) == 3 and len(take.take(wait=False)[1]) == 2
    assert take.take(wait=False) is None


class Numbers(BaseSource):
    name, fps, root, live = "numbers", None, None, False

    def __init__(self, count, ahead):
        self.count, self.ahead, self.reached = count, ahead, threading.Event()

    def frames(self):
        for index in range(self.count):
            if index == self.ahead:  # so many are in the mailbox, or were taken out
                self.reached.set()
            yield frame(index)

    def close(self):
        pass


class Kept(BaseSink):
    name, shows = "kept", False

    def __init__(self):
        self.found = []

    def write(self, frame, detection):
        self.found.append((frame.index, round(detection.score * 255)))

    def skip(self, bad):
        raise AssertionError(bad)

    def close(self):
        pass


@pytest.mark.parametrize(("batch", "in_flight"), [(1, 2), (3, 2), (4, 3)])
def test_a_run_hands_every_frame_on_once_and_in_order(batch, in_flight):
    class Busy(Detector):
        flying = most = 0

        def submit(self, frames, class_name=None):
            assert source.reached.wait(20)  # until a second batch waits for sure
            self.flying += 1
            self.most = max(self.most, self.flying)
            assert len(frames) <= batch and self.flying <= in_flight
            collect = super().submit(frames)

            def waited():
                self.flying -= 1
                return collect()

            return waited

    source, sink, detector = Numbers(40, 2 * batch), Kept(), Busy()
    config = PipelineConfig(Policy.WAIT, batch=batch, in_flight=in_flight)
    summary = Pipeline(source, detector, [sink], config).run()
    assert sink.found == [(index, index) for index in range(40)] and summary.frames == 40
    assert detector.most > 1
