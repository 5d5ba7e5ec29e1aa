"""Corrections of a real model's verdicts: what they change, what they leave, and every way back."""

from __future__ import annotations

import shutil
import threading

import numpy as np
import pytest
from disks import fill, small_disk
from learning import images

from kanoclip.runtime import Detector
from kanoclip.runtime.bundle.bundle import Bundle, shipped_bundle
from kanoclip.runtime.bundle.manifest.parts import HISTORY
from kanoclip.runtime.bundle.store import locked
from kanoclip.runtime.detect.learning.live import LiveReferences
from kanoclip.runtime.detect.learning.teaching.teacher import Teacher
from kanoclip.runtime.detect.reference.memory import Label
from kanoclip.runtime.detect.reference.stored.history import memory_of
from kanoclip.runtime.detect.settings.settings import Decision, Settings
from kanoclip.runtime.errors import BundleError, SettingsError

NAME = "object"
GOOD = images(9, size=(256, 256))
LEARNED = []


class Slot:
    learner = None

    def learn_by(self, learner):
        self.learner = learner


class Line:
    """A detector that is taught, without a stream."""

    def __init__(self, detector):
        self.detector, self.slot, changing = detector, Slot(), threading.RLock()
        live = LiveReferences(detector, changing)
        self.teacher = Teacher(detector, live, changing, self.slot, live.use)
        self.use = live.use

    def learn(self):
        """From good frames; what came of them is the same for every test, and takes seconds."""
        if LEARNED:
            self.use(NAME, *LEARNED[0])
            return
        frames = GOOD[:8]
        self.teacher.lessons.begin(NAME, len(frames), good=True)
        learner = self.slot.learner
        for number, image in enumerate(frames):
            learner.look(f"{number}.png", self.detector.prepare(image), image, None)
        learner.finish()
        assert self.teacher.lessons.state().message.startswith("object is learned from 8 of 8 frames; the threshold is")
        LEARNED.append((self.detector.rules.memory_of(NAME), self.detector.thresholds_of(NAME)))

    def found(self, image):
        found = self.detector(image)
        return found.score, found.threshold, found.is_anomalous

    def label(self, label, image, name="x.png"):
        return self.teacher.correct(label, name, self.detector.prepare(image), NAME)


@pytest.fixture(scope="module")
def loaded():
    with Detector.load(shipped_bundle(), backend="onnxruntime", threads=1) as detector:
        yield detector


@pytest.fixture
def line(loaded):
    """Of the package's bundle, which cannot be written."""
    loaded.rules.use_own(NAME, None, Settings())
    return Line(loaded)


@pytest.fixture
def own(tmp_path):
    return shutil.copytree(shipped_bundle(), tmp_path / "own.kanoclip")


def stained(place, channels, step):
    image = GOOD[8].copy()
    image[place][..., channels] = np.clip(image[place][..., channels].astype(int) + step, 0, 255)
    return image


STAIN = stained(np.s_[192:224, 192:224], [2], 90)


def faint(line):
    """The strongest defect that passes."""
    steps = (stained(np.s_[32:64, 64:96], [0, 1, 2], step) for step in range(45, 0, -5))
    return next(image for image in steps if not line.found(image)[2])


def test_fine_and_bad_hold_together_and_go_back_to_the_bit(line):
    line.learn()
    missed = faint(line)
    probes = (GOOD[8], STAIN, missed)
    states = [[line.found(image) for image in probes]]
    assert states[0][1][2] and not states[0][2][2]
    fine = line.label(Label.FINE, STAIN)
    assert fine.wrong and fine.right and "it passes from now on" in fine.sentence()
    assert fine.threshold == states[0][0][1], "one odd frame moves no threshold"
    states.append([line.found(image) for image in probes])
    assert not states[1][1][2]
    bad = line.label(Label.BAD, missed)
    assert bad.wrong and bad.right and bad.threshold < fine.threshold and bad.against == ()
    states.append([line.found(image) for image in probes])
    assert not states[2][1][2] and states[2][2][2]
    assert line.found(missed)[0] == bad.correction.score, "the engine's own score"
    with pytest.raises(SettingsError, match=r"x\.png is labelled bad already"):
        line.label(Label.BAD, missed)
    with pytest.raises(SettingsError, match="became a reference as a fine frame: undo that step first"):
        line.label(Label.BAD, STAIN)
    assert [one.label for one in line.teacher.undo(NAME)] == [Label.BAD]
    assert [line.found(image) for image in probes] == states[1]
    line.teacher.undo(NAME)
    assert [line.found(image) for image in probes] == states[0]
    line.teacher.undo(NAME)
    assert line.detector.rules.memory_of(NAME) is None
    with pytest.raises(SettingsError, match="nothing to undo"):
        line.teacher.undo(NAME)


def test_a_right_verdict_is_a_label_and_no_more(line):
    line.learn()
    before = line.found(GOOD[8]), line.found(STAIN)
    fine, bad = line.label(Label.FINE, GOOD[8]), line.label(Label.BAD, STAIN)
    assert not fine.wrong and not bad.wrong and "right already" in fine.sentence()
    assert (line.found(GOOD[8]), line.found(STAIN)) == before
    assert len(line.detector.rules.memory_of(NAME).names) == 8


def test_labels_that_no_threshold_tells_apart_are_said_plainly(line):
    line.learn()
    weak, strong = sorted((GOOD[8], faint(line)), key=lambda image: line.found(image)[0])
    assert not line.label(Label.FINE, strong, "strong.png").wrong
    bad = line.label(Label.BAD, weak)
    # A defect is found rather than a false alarm spared.
    assert bad.right and line.found(weak)[2] and line.found(strong)[2]
    assert "wrong now for 1 labelled before, such as strong.png (fine)" in bad.sentence()
    line.teacher.undo(NAME)
    line.teacher.undo(NAME)
    line.label(Label.BAD, weak)
    fine = line.label(Label.FINE, strong)
    assert fine.wrong and line.found(strong)[2] != fine.right, "what is said is what the engine does"


def test_a_threshold_chosen_by_hand_is_where_the_rule_starts_and_comes_back(line):
    line.learn()
    chosen = Settings().choosing(NAME, Decision(threshold=0.95, pixel_threshold=0.95))
    line.detector.rules.decide_by(chosen)
    score, threshold, _ = line.found(STAIN)
    assert threshold == 0.95 and score > 0.95
    assert line.label(Label.FINE, STAIN).threshold == pytest.approx(0.95, abs=1e-6)
    line.teacher.undo(NAME)
    assert line.found(STAIN) == (score, 0.95, True)


def test_a_flag_does_not_keep_a_correction_from_working(loaded):
    loaded.rules.use_own(NAME, None, Settings())
    line = Line(loaded)
    line.learn()
    loaded.rules.decide_by(Settings(flags=Decision(threshold=0.99)))
    missed = stained(np.s_[32:64, 64:96], [0, 1, 2], 60)
    assert not line.found(missed)[2]
    said = line.label(Label.BAD, missed)
    assert line.found(missed)[2] and said.overridden and "overrides it at the next start" in said.sentence()


def test_without_a_memory_there_is_nothing_to_correct(line):
    with pytest.raises(SettingsError, match=r"has no reference memory, .*: learn it from good frames first"):
        line.label(Label.FINE, STAIN)


def test_steps_are_saved_one_by_one_and_undone_in_the_bundle(own):
    with Detector.load(own, backend="onnxruntime", threads=1) as detector:
        line = Line(detector)
        zero = line.found(STAIN)
        line.learn()
        missed = faint(line)
        states = [zero, line.found(STAIN)]
        line.label(Label.FINE, STAIN, "a<b>/'.png")
        states.append(line.found(STAIN))
        line.label(Label.BAD, missed)
        states.append(line.found(STAIN))
        assert line.teacher.unsaved(NAME) == 3
        manifest = (own / "manifest.json").read_bytes()
        with locked(own), pytest.raises(BundleError, match="is being changed"):
            line.teacher.save(NAME)
        assert (own / "manifest.json").read_bytes() == manifest and line.found(STAIN) == states[3]
        assert line.teacher.save(NAME) == own and line.teacher.unsaved(NAME) == 0
    assert len(Bundle.open(own).manifest.references[NAME].history) == 2
    with Detector.load(own, backend="onnxruntime", threads=1) as detector:
        line = Line(detector)
        assert line.found(STAIN) == states[3] and line.found(missed)[2]
        names = [one.name for one in memory_of(Bundle.open(own), NAME).corrections]
        assert names == ["a<b>/'.png", "x.png"]
        for before in (states[2], states[1], states[0]):
            line.teacher.undo(NAME)
            assert line.found(STAIN) == before
        assert not Bundle.open(own).manifest.references


def test_a_full_disk_leaves_what_was_saved_and_what_is_in_use(tmp_path):
    (tmp_path / "disk").mkdir()
    with small_disk(tmp_path / "disk", "64m") as disk:
        own = shutil.copytree(shipped_bundle(), disk / "own.kanoclip")
        with Detector.load(own, backend="onnxruntime", threads=1) as detector:
            line = Line(detector)
            line.learn()
            line.teacher.save(NAME)
            line.label(Label.FINE, STAIN)
            before, manifest = line.found(STAIN), (own / "manifest.json").read_bytes()
            fill(disk / "rest")
            with pytest.raises(
                BundleError, match=r"cannot be written \(No space left on device\); nothing was changed"
            ):
                line.teacher.save(NAME)
            assert line.found(STAIN) == before and (own / "manifest.json").read_bytes() == manifest
            assert line.teacher.unsaved(NAME) == 1
            (disk / "rest").unlink()
            line.teacher.save(NAME)
            assert len(memory_of(Bundle.open(own), NAME).names) == 9


def test_a_bundle_that_cannot_be_written_takes_a_name_and_its_copy_follows(line, tmp_path):
    line.learn()
    missed = faint(line)
    line.label(Label.FINE, STAIN)
    copy = tmp_path / "bottle.kanoclip"
    with pytest.raises(BundleError, match="belongs to the package: name a folder"):
        line.teacher.save(NAME)
    assert line.teacher.needs_name() and line.teacher.save(NAME, copy) == copy
    assert line.teacher.unsaved(NAME) == 0
    line.teacher.undo(NAME)
    line.label(Label.BAD, missed)
    assert line.teacher.unsaved(NAME) == 1 and line.teacher.save(NAME) == copy
    with Detector.load(copy, backend="onnxruntime", threads=1) as detector:
        again = Line(detector)
        assert again.found(STAIN) == line.found(STAIN) and again.found(missed) == line.found(missed)
        again.teacher.undo(NAME)
        line.teacher.undo(NAME)
        assert again.found(STAIN) == line.found(STAIN)


def test_corrections_from_several_threads_are_made_one_after_the_other(line):
    line.learn()
    frames = [stained(np.s_[192:224, 192:224], [channel], 120) for channel in (0, 1, 2)]
    errors = []

    def label(image):
        try:
            line.label(Label.BAD, image)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=label, args=(image,)) for image in frames]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == [] and len(line.detector.rules.memory_of(NAME).corrections) == 3
    assert HISTORY >= 4 and line.teacher.unsaved(NAME) == 4
