"""References that are added while a detector scores: what they change, and the way back."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from kanoclip.runtime import Detector
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.bundle.store import locked, store
from kanoclip.runtime.detect.learning.live import LiveReferences, MemoryCount
from kanoclip.runtime.detect.reference.stored.history import put, undo
from kanoclip.runtime.detect.settings.settings import Decision, Settings
from kanoclip.runtime.errors import BundleError, FrameError, MemoryFileError, SettingsError

GRID, ROWS = (4, 4), 24


def noise(seed, size=(32, 32)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def add(live, detector, seed, class_name="nut"):
    return live.add(f"{seed}.png", detector.prepare(noise(seed), class_name), class_name)


def test_the_first_reference_makes_the_memory_and_its_thresholds(detector):
    live, zero_shot = LiveReferences(detector), detector(noise(0), "nut")
    assert live.count("nut") == MemoryCount(0, 0) and live.saved("nut")
    assert add(live, detector, 1) == MemoryCount(1, 16)
    memory, thresholds = detector.rules.memory_of("nut"), detector.thresholds_of("nut")
    assert memory.names == ("1.png",) and "added while a stream ran" in memory.note
    assert memory.loo_scores[0] < thresholds.image <= memory.loo_scores[0] + 1e-6
    assert thresholds.origin.startswith("conformal: false-alarm rate 0.5 by 1 references")
    assert not live.saved("nut") and live.saved("bolt")
    assert detector.rules.memory_of("bolt") is None and detector.thresholds_of("bolt").image == 0.5
    assert detector(noise(0), "nut").score != zero_shot.score


def test_each_further_one_is_out_of_sample_and_moves_the_threshold(detector):
    live = LiveReferences(detector)
    for seed in range(1, 5):
        assert add(live, detector, seed).references == seed
    memory = detector.rules.memory_of("nut")
    assert len(memory.rows) == ROWS, "bounded by the graph"
    assert detector.thresholds_of("nut").image > memory.loo_scores.max()
    assert "by 4 references" in detector.thresholds_of("nut").origin


@pytest.mark.parametrize("origin", ["conformal: false-alarm rate 0.01 by 2000 good frames", "made up"])
def test_thresholds_of_another_kind_stay(folder, detector, origin):
    live = LiveReferences(detector)
    add(live, detector, 1)
    by_hand = Thresholds(0.7, 0.8, 3, origin)
    live.use("nut", detector.rules.memory_of("nut"), by_hand)
    add(live, detector, 2)
    assert detector.thresholds_of("nut") == by_hand


def test_every_change_can_be_taken_back(detector):
    live = LiveReferences(detector)
    before = detector(noise(0), "nut")
    add(live, detector, 1)
    one, limit = detector(noise(0), "nut"), detector.thresholds_of("nut")
    add(live, detector, 2)
    assert live.reset("nut") == MemoryCount()
    reset = detector(noise(0), "nut")
    assert (reset.score, reset.threshold) == (before.score, before.threshold)
    with pytest.raises(SettingsError, match="nut has no memory: its scores are zero-shot"):
        live.reset("nut")
    assert live.undo("nut").references == 2
    assert live.undo("nut").references == 1
    assert detector(noise(0), "nut").score == one.score and detector.thresholds_of("nut") == limit
    assert live.undo("nut") == MemoryCount() and live.saved("nut")
    with pytest.raises(SettingsError, match=r"nothing to undo: .* kanoclip-learn --undo"):
        live.undo("nut")


def test_what_is_saved_is_what_a_new_start_scores_by(folder, detector):
    live = LiveReferences(detector)
    add(live, detector, 1)
    add(live, detector, 2)
    now = detector(noise(0), "nut")
    assert live.save("nut") == folder and live.saved("nut")
    found = detector(noise(0), "nut")
    assert (found.score, found.threshold) == (now.score, now.threshold)
    with Detector.load(folder, backend="onnxruntime", threads=1) as again:
        found = again(noise(0), "nut")
        assert (found.score, found.threshold) == (now.score, now.threshold)
        assert again.rules.memory_of("bolt") is None and again.thresholds_of("bolt").image == 0.5
    assert live.save("nut") == folder, "nothing to do"
    with pytest.raises(SettingsError, match="nothing to undo"):
        live.undo("nut")
    add(live, detector, 3)
    live.save("nut")
    assert undo(Bundle.open(folder), "nut").names == ("1.png", "2.png"), "it has a history"
    assert undo(Bundle.open(folder), "nut").names == ("1.png",), "of each step"
    assert undo(Bundle.open(folder), "nut") is None
    assert Bundle.open(folder).manifest.thresholds_of("nut").image == 0.5


def test_saved_steps_do_not_come_again_when_they_are_undone_in_the_bundle(folder, detector):
    live = LiveReferences(detector)
    add(live, detector, 1)
    add(live, detector, 2)
    live.save("nut")
    for _ in range(2):  # the bundle's memory is the one that the steps began with
        undo(Bundle.open(folder), "nut")
        detector.rules.decide_by(detector.rules.settings, detector.bundle.reread())
    assert not live.can_undo("nut") and live.steps("nut") == [] and live.count("nut") == MemoryCount()


def test_saved_into_a_copy(folder, detector, tmp_path):
    live = LiveReferences(detector)
    add(live, detector, 1)
    copy = tmp_path / "own.kanoclip"
    assert live.save("nut", copy) == copy and not live.saved("nut")
    assert Bundle.open(copy).manifest.name == "own" and not Bundle.open(folder).manifest.references
    with pytest.raises(BundleError, match="is there already"):
        live.save("nut", copy)


def test_thresholds_chosen_over_it_are_saved_with_it(folder, detector):
    live = LiveReferences(detector)
    add(live, detector, 1)
    detector.rules.decide_by(Settings().choosing("nut", Decision(threshold=0.75)))
    live.save("nut")
    saved = Bundle.open(folder).manifest.thresholds_of("nut")
    assert saved.image == 0.75 and saved.origin.startswith("chosen while a stream ran")


def test_what_cannot_be_saved_leaves_all_as_it_is(folder, detector, monkeypatch):
    live = LiveReferences(detector)
    with pytest.raises(SettingsError, match="nut has no memory to save"):
        live.save("nut")
    add(live, detector, 1)
    manifest = (folder / "manifest.json").read_bytes()
    with locked(folder), pytest.raises(BundleError, match="is being changed by another process"):
        live.save("nut")
    assert (folder / "manifest.json").read_bytes() == manifest and not live.saved("nut")
    assert live.count("nut").references == 1


def test_a_memory_learned_meanwhile_takes_the_place_of_the_live_one(folder, detector):
    live = LiveReferences(detector)
    add(live, detector, 1)
    live_one = detector.rules.memory_of("nut")
    store(Bundle.open(folder), None, "bolt", Thresholds(0.9, 0.8, 3, "conformal"))
    detector.rules.decide_by(Settings(), detector.bundle.reread())
    assert detector.rules.memory_of("nut") is live_one, "another change of the bundle leaves it"
    assert detector.thresholds_of("nut").image != 0.5 and detector.thresholds_of("bolt").image == 0.9
    put(Bundle.open(folder), None, "nut", replace(live_one, names=("learned.png",)), Thresholds(0.6, 0.6, 0, "learn"))
    detector.rules.decide_by(Settings(), detector.bundle.reread())
    assert detector.rules.memory_of("nut").names == ("learned.png",) and detector.thresholds_of("nut").image == 0.6
    with pytest.raises(SettingsError, match="nothing to undo"):
        live.undo("nut")
    add(live, detector, 2)
    assert detector.rules.memory_of("nut").names == ("learned.png", "2.png")
    live.reset("nut")
    assert detector.thresholds_of("nut").image == 0.5, "as before the first memory"


def test_what_is_refused(make_toy_bundle, tmp_path, detector):
    with Detector.load(make_toy_bundle(tmp_path / "plain.kanoclip", grid=GRID), backend="onnxruntime") as plain:
        live = LiveReferences(plain)
        with pytest.raises(MemoryFileError, match="takes no reference memory: export it again"):
            live.add("1.png", plain.prepare(noise(1)), "object")
    with pytest.raises(FrameError, match="unknown class 'washer'"):
        LiveReferences(detector).add("1.png", detector.prepare(noise(1)), "washer")


def test_tiles(make_toy_bundle, tmp_path):
    folder = make_toy_bundle(tmp_path / "t.kanoclip", grid=GRID, memory_rows=ROWS, tiles=TileGrid(2, 1, 0.25))
    with Detector.load(folder, backend="onnxruntime", threads=1) as detector:
        live = LiveReferences(detector)
        for seed in (1, 2):
            live.add(f"{seed}.png", detector.prepare(noise(seed, (64, 40))), "object")
        memory = detector.rules.memory_of()
        assert memory.tiles == TileGrid(2, 1, 0.25) and len(memory.names) == 2
        live.save("object")
    assert Bundle.open(folder).manifest.references


def test_additions_from_several_threads_while_frames_are_scored(detector):
    """None is lost, and no frame gets a verdict by the threshold of another memory."""
    live, stop, seen = LiveReferences(detector), threading.Event(), []

    def score():
        while not stop.is_set():
            seen.append(detector(noise(0), "nut"))

    scoring = threading.Thread(target=score)
    adding = [threading.Thread(target=add, args=(live, detector, seed)) for seed in range(1, 7)]
    for thread in (scoring, *adding):
        thread.start()
    for thread in adding:
        thread.join(60)
    stop.set()
    scoring.join(60)
    memory = detector.rules.memory_of("nut")
    assert sorted(memory.names) == [f"{seed}.png" for seed in range(1, 7)] and seen
    assert live.count("nut").references == 6
