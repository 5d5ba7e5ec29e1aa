"""Runs in flight: which begins when, what a frame is decided by, and a GPU that is lost under two of them."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.graph import Graph
from kanoclip.runtime.detect.settings.settings import Decision, Settings
from kanoclip.runtime.engines.base import BaseBackend
from kanoclip.runtime.errors import DeviceLostError


class Machine(SimpleNamespace):
    """What backends of one GPU note; it is lost at the calls that `lost_at` numbers, from 0."""

    def __init__(self, *lost_at):
        super().__init__(calls=[], lost_at=set(lost_at), made=0, closed=0)

    def call(self, what, frames):
        number = len(self.calls)
        self.calls.append((what, int(frames[0, 0, 0, 0])))
        if number in self.lost_at:
            raise DeviceLostError("the GPU failed")

    def make(self):
        self.made += 1
        return Two(self)


class Two(BaseBackend):
    """Holds two batches in flight; a frame's score is its grey level. What it was closed with is never answered."""

    name, workers, in_flight = "two", 1, 2

    def __init__(self, machine):
        self.machine, self.open = machine, True

    def answer(self, frames):
        assert self.open, "a closed engine does not answer"
        maps = frames.mean(3, dtype=np.float32) / np.float32(255)
        return maps, maps.max((1, 2))

    def run(self, frames, class_index, memory=None):
        self.machine.call("run", frames)
        return self.answer(frames)

    def submit(self, frames, class_index, memory=None):
        self.machine.call("submit", frames)

        def collect():
            self.machine.call("collect", frames)
            return self.answer(frames)

        return collect

    def describe(self, frames):
        self.machine.call("describe", frames)
        return np.zeros((len(frames), 16, 3), np.float32)

    def close(self):
        self.machine.closed += 1
        self.open = False


def grey(value):
    return np.full((32, 32, 3), value, np.uint8)


def test_each_run_begins_before_the_one_before_it_is_waited_for(toy_bundle):
    machine = Machine()
    graph = Graph(Bundle.open(toy_bundle), machine.make())
    runs = graph.run([grey(value) for value in range(4)], 0, None)
    assert machine.calls == [("submit", 0)]
    scores = [output.score for run in runs for output in run]
    assert scores == pytest.approx([value / 255 for value in range(4)])
    assert machine.calls == [
        ("submit", 0), ("submit", 1), ("collect", 0), ("submit", 2), ("collect", 1), ("submit", 3), ("collect", 2),
        ("collect", 3),
    ]  # fmt: skip
    assert list(graph.run([], 0, None)) == []


def test_a_frame_keeps_the_thresholds_that_it_began_with(toy_bundle):
    machine = Machine()
    detector = Detector(Bundle.open(toy_bundle), machine.make(), Settings(flags=Decision(threshold=0.1)))
    assert detector.in_flight == 2
    first = detector.submit([detector.prepare(grey(51))])
    detector.rules.decide_by(Settings(flags=Decision(threshold=0.9)))
    second = detector.submit([detector.prepare(grey(51))])
    assert machine.calls == [("submit", 51)] * 2
    found = [*first(), *second()]
    assert [(one.threshold, one.is_anomalous) for one in found] == [(0.1, True), (0.9, False)]


def test_warming_up_fills_what_is_in_flight(toy_bundle):
    machine = Machine()
    Detector(Bundle.open(toy_bundle), machine.make()).warmup(2)
    assert [what for what, _ in machine.calls] == ["submit", "submit", "collect", "collect"] * 2


@pytest.mark.parametrize("lost_at", range(6))
def test_a_loss_with_two_in_flight_costs_no_frame(toy_bundle, lost_at, caplog):
    machine = Machine(lost_at)
    bundle = Bundle.open(toy_bundle)
    detector = Detector(bundle, machine.make(), revive=machine.make)
    prepared = [detector.prepare(grey(value)) for value in (10, 20, 30)]
    flying, scores = [detector.submit(prepared[:1])], []
    for frame in prepared[1:]:
        flying.append(detector.submit([frame]))
        scores += [found.score for found in flying.pop(0)()]
    scores += [found.score for found in flying.pop(0)()]
    assert scores == pytest.approx([10 / 255, 20 / 255, 30 / 255])
    assert (machine.made, machine.closed) == (2, 1), "made anew once, however many were in flight"
    assert caplog.text.count("starting it again") == 1
    # Each frame was begun once, and those that the loss took were made once more.
    again = {0: [10], 1: [10, 20], 2: [10, 20], 3: [20, 30], 4: [20, 30], 5: [30]}[lost_at]
    assert sorted(value for what, value in machine.calls if what == "run") == again
    assert detector([grey(7)][0]).score == pytest.approx(7 / 255)


@pytest.mark.parametrize(("first", "second"), [*itertools.combinations(range(5), 2)])
def test_no_frame_is_lost_twice(toy_bundle, first, second):
    """A second loss is met by a frame that was lost already, and ends the run, or by another one, which it does not."""
    machine = Machine(first, second)
    detector = Detector(Bundle.open(toy_bundle), machine.make(), revive=machine.make)
    flying = []
    try:
        flying += [detector.submit([detector.prepare(grey(value))]) for value in (10, 20)]
        scores = [found.score for collect in flying for found in collect()]
    except DeviceLostError:
        assert machine.calls[-1][0] == "run" and len(machine.calls) - 1 == second
        assert (machine.made, machine.closed) == (2, 1)
    else:
        assert scores == pytest.approx([10 / 255, 20 / 255])
    tries = [value for what, value in machine.calls if what in ("submit", "run")]
    assert all(tries.count(value) <= 2 for value in (10, 20))


def test_a_loss_without_a_way_back_is_an_error(toy_bundle):
    for lost_at in range(4):
        machine = Machine(lost_at)
        detector = Detector(Bundle.open(toy_bundle), machine.make())
        with pytest.raises(DeviceLostError):
            flying = [detector.submit([detector.prepare(grey(value))]) for value in (10, 20)]
            assert [collect() for collect in flying] == []


def test_a_loss_that_another_call_meets_takes_what_is_in_flight_along(make_toy_bundle, tmp_path):
    machine = Machine(2)
    bundle = Bundle.open(make_toy_bundle(tmp_path / "toy.kanoclip", grid=(4, 4)))
    detector = Detector(bundle, machine.make(), revive=machine.make)
    flying = [detector.submit([detector.prepare(grey(value))]) for value in (10, 20)]
    assert detector.describe([grey(5)]).shape == (1, 16, 3)
    scores = [found.score for collect in flying for found in collect()]
    assert scores == pytest.approx([10 / 255, 20 / 255])
    assert machine.calls[2:] == [("describe", 5), ("describe", 5), ("run", 10), ("run", 20)]
    assert (machine.made, machine.closed) == (2, 1)
