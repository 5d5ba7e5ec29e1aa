"""Learning from the next frames, begun and called off while a stream runs."""

from __future__ import annotations

import numpy as np
import pytest

from kanoclip.runtime.detect.learning.teaching.lesson import Lessons
from kanoclip.runtime.detect.reference import repeats
from kanoclip.runtime.errors import SettingsError


class Slot:
    def __init__(self):
        self.learner = None

    def learn_by(self, learner):
        self.learner = learner


@pytest.fixture
def lessons(detector):
    """The lessons of a toy bundle, the slot, and what is given frames to it."""
    slot, ended = Slot(), []
    made = Lessons(detector, slot, detector.rules.use_memory, lambda: ended.append(1))

    def look(count, class_name="nut", start=0):
        learner = slot.learner
        for seed in range(start, start + count):
            image = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)
            learner.look(f"{seed}.png", detector.prepare(image, class_name), image, class_name)
        return learner

    return made, slot, look, ended


def test_it_learns_one_class_and_gives_the_slot_back(detector, lessons):
    made, slot, look, ended = lessons
    assert made.state() is None
    before = slot.learner = object.__new__(type("Idle", (), {"learning": lambda self, name: False}))
    assert made.begin("nut", 4, good=True).going
    look(2, "bolt")
    look(3)
    assert made.state().taken == 3
    with pytest.raises(SettingsError, match="nut is being learned already: wait, or cancel that"):
        made.begin("bolt", 4, good=True)
    look(1, start=3).finish()
    state = made.state()
    assert not state.going and not state.failed and state.message.startswith("nut is learned from 4 of 4 frames")
    assert slot.learner is before and ended == [1]
    assert detector.rules.memory_of("nut").names == ("0.png", "1.png", "2.png", "3.png")
    assert detector.rules.memory_of("bolt") is None
    made.begin("nut", 3, good=False)  # anew, over the memory that is there
    look(3, start=10).finish()
    assert "10.png" in detector.rules.memory_of("nut").names


def test_a_line_that_stands_still_is_told_to_run(detector, lessons, monkeypatch):
    monkeypatch.setattr(repeats, "REPEATED", 0.1)
    made, _, look, _ = lessons
    made.begin("nut", 4, good=True)
    for _ in range(4):
        learner = look(1)
    learner.finish()
    assert "; 3 show what others show, and they count as 1: let the line run; the" in made.state().message


def test_it_is_cancelled(detector, lessons):
    made, slot, look, _ = lessons
    with pytest.raises(SettingsError, match="nothing is being learned"):
        made.cancel()
    made.begin("nut", 4, good=True)
    learner = look(3)
    assert made.cancel().message == "cancelled: nothing was learned" and slot.learner is None
    image = np.zeros((32, 32, 3), np.uint8)
    learner.look("late.png", detector.prepare(image, "nut"), image, "nut")
    learner.finish()
    assert detector.rules.memory_of("nut") is None and not made.state().going


def test_an_error_ends_it_in_one_line(detector, lessons, monkeypatch):
    made, slot, look, ended = lessons
    made.begin("nut", 3, good=True)
    monkeypatch.setattr("kanoclip.runtime.detect.learning.warmed_up.fit", lambda *a, **k: 1 / 0)
    look(3).finish()
    state = made.state()
    assert state.failed and state.message == "nothing was learned of nut: division by zero"
    assert slot.learner is None and ended == [1] and detector.rules.memory_of("nut") is None


def test_what_makes_no_sense_is_refused(lessons):
    made, slot, _, _ = lessons
    with pytest.raises(SettingsError, match="2 frames: it takes 3 at least"):
        made.begin("nut", 2, good=True)
    slot.learner = object.__new__(type("WarmingUp", (), {"learning": lambda self, name: True}))
    with pytest.raises(SettingsError, match="the warm-up of nut goes on"):
        made.begin("nut", 4, good=True)
