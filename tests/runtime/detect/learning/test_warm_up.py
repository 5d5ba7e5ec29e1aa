"""Warm-up: the first frames of a class become its memory, the odd ones left out; whatever fails, the line goes on."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest

from kanoclip.runtime import Detector
from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.detect.learning import warm_up as warm_up_module
from kanoclip.runtime.detect.learning import warmed_up as module
from kanoclip.runtime.detect.learning.warm_up import WarmUp, check_warm_up
from kanoclip.runtime.detect.reference import repeats
from kanoclip.runtime.errors import BackendError, BundleError, MemoryFileError, SettingsError

GRID, ROWS = (4, 4), 24


def part(seed, size=(32, 32), odd=False):
    """The same part with a little noise; an odd one has a patch of another colour."""
    image = np.random.default_rng(99).integers(40, 200, (*size, 3))
    image += np.random.default_rng(seed).integers(-4, 5, image.shape)
    if odd:
        image[8:16, 16:24] = (255, 0, 0)
    return image.astype(np.uint8)


def look(warm_up, detector, seed, class_name="nut", **options):
    image = part(seed, **options)
    warm_up.look(f"{seed}.png", detector.prepare(image, class_name), image, class_name)


def test_the_odd_frame_is_left_out_and_named(detector, caplog):
    learned = []
    warm_up = WarmUp(detector, 8, detector.rules.use_memory, learned.append)
    zero_shot = detector(part(20), "nut").score
    with caplog.at_level(logging.INFO, "kanoclip.runtime"):
        for seed in range(8):
            assert detector.rules.memory_of("nut") is None
            look(warm_up, detector, seed, odd=seed == 5)
        warm_up.finish()
    (found,) = learned
    memory = detector.rules.memory_of("nut")
    assert found.left_out == ("5.png",) and memory is found.memory
    assert memory.names == tuple(f"{seed}.png" for seed in range(8) if seed != 5)
    assert memory.note.startswith("warm-up of 8 frames, onnxruntime")
    assert len(memory.loo_scores) == 7 and len(memory.rows) == ROWS
    limit = detector.thresholds_of("nut")
    assert limit == found.thresholds and limit.image > memory.loo_scores.max()
    assert limit.origin.startswith("conformal: false-alarm rate 0.125 by 7 references"), "the best that 7 allow"
    assert detector(part(20), "nut").score != zero_shot
    assert detector.rules.memory_of("bolt") is None and detector.thresholds_of("bolt").image == 0.5
    assert found.sizes == ((32, 32),) * 8 and len(found.thumbnails) == 8
    (line,) = [message for message in caplog.messages if message.startswith("warm-up")]
    assert line.startswith("warm-up: learned nut from 7 of 8 frames; left out: 1 frame (5.png) and ")
    assert f"patches of the others; the memory has {ROWS} rows, and the threshold is {limit.image:.3f}" in line


def test_copies_count_as_one_and_the_log_says_so(detector, caplog, monkeypatch):
    monkeypatch.setattr(repeats, "REPEATED", 0.1)
    learned = []
    warm_up = WarmUp(detector, 5, detector.rules.use_memory, learned.append, good=True)
    with caplog.at_level(logging.INFO, "kanoclip.runtime"):
        for seed in range(5):
            image = part(0)
            warm_up.look(f"{seed}.png", detector.prepare(image, "nut"), image, "nut")
        warm_up.finish()
    (found,) = learned
    assert found.memory.counted.sum() == 1 and "by 1 references" in found.thresholds.origin
    assert "4 show what others show, and they count as 1; " in found.sentence()


def test_further_frames_are_not_looked_at(detector, monkeypatch):
    warm_up = WarmUp(detector, 3, detector.rules.use_memory)
    for seed in range(3):
        look(warm_up, detector, seed)
    warm_up.finish()
    memory, looked = detector.rules.memory_of("nut"), []
    monkeypatch.setattr(warm_up_module, "look", lambda *given: looked.append(given))
    look(warm_up, detector, 3)
    assert looked == [] and detector.rules.memory_of("nut") is memory


def test_each_class_counts_its_own_frames(detector, caplog):
    warm_up = WarmUp(detector, 3, detector.rules.use_memory)
    for seed in range(3):
        look(warm_up, detector, seed)
        if seed:
            look(warm_up, detector, seed, "bolt")
    warm_up.finish()
    assert len(detector.rules.memory_of("nut").names) == 3 and detector.rules.memory_of("bolt") is None
    assert caplog.messages == ["warm-up: the run ended after 2 of 3 frames of bolt: nothing was learned"]


def test_a_run_without_frames(detector, caplog):
    WarmUp(detector, 3, detector.rules.use_memory).finish()
    assert caplog.messages == ["warm-up: the run ended before its first frame: nothing was learned"]


def test_a_class_that_was_learned_otherwise_is_left_alone(detector, caplog):
    first = WarmUp(detector, 3, detector.rules.use_memory)
    for seed in range(3):
        look(first, detector, seed)
    first.finish()
    memory = detector.rules.memory_of("nut")
    second = WarmUp(detector, 3, detector.rules.use_memory)
    for seed in range(3):
        look(second, detector, seed)
    second.finish()
    assert detector.rules.memory_of("nut") is memory and caplog.messages == []


def test_frames_from_several_threads(detector):
    warm_up = WarmUp(detector, 12, detector.rules.use_memory)

    def some(first):
        for seed in range(first, 20, 4):
            look(warm_up, detector, seed)

    threads = [threading.Thread(target=some, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    warm_up.finish()
    assert 8 <= len(detector.rules.memory_of("nut").names) <= 12


def test_the_fit_holds_no_frame_up(detector, monkeypatch):
    going, go = threading.Event(), threading.Event()
    fit = module.fit

    def slow(*given, **options):
        going.set()
        assert go.wait(60)
        return fit(*given, **options)

    monkeypatch.setattr(module, "fit", slow)
    warm_up = WarmUp(detector, 3, detector.rules.use_memory)
    for seed in range(3):
        look(warm_up, detector, seed)
    assert going.wait(60)
    for seed in range(3, 6):
        detector(part(seed), "nut")
        look(warm_up, detector, seed)
    assert detector.rules.memory_of("nut") is None
    go.set()
    warm_up.finish()
    assert detector.rules.memory_of("nut").names == ("0.png", "1.png", "2.png")


@pytest.mark.parametrize("error", [MemoryError("no room"), ValueError("no cell may become a row"), BundleError("cut")])
def test_a_fit_that_fails_is_one_line(detector, monkeypatch, caplog, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(module, "fit", fail)
    warm_up = WarmUp(detector, 3, detector.rules.use_memory)
    for seed in range(5):
        look(warm_up, detector, seed)
    warm_up.finish()
    assert detector.rules.memory_of("nut") is None and detector.thresholds_of("nut").image == 0.5
    assert caplog.messages == [f"warm-up of nut failed, and its scores stay zero-shot ones: {error}"]


def test_an_engine_that_fails_ends_it_with_one_line(detector, caplog, monkeypatch):
    warm_up = WarmUp(detector, 4, detector.rules.use_memory)
    look(warm_up, detector, 0)

    def fail(*_):
        raise BackendError("triton does not answer")

    monkeypatch.setattr(warm_up_module, "look", fail)
    for seed in range(1, 6):
        look(warm_up, detector, seed)
    warm_up.finish()
    assert caplog.messages == ["warm-up of nut failed, and its scores stay zero-shot ones: triton does not answer"]


def test_what_follows_may_fail_and_the_memory_is_in_use(detector, caplog):
    def fail(_):
        raise BundleError("copy.kanoclip cannot be written (No space left on device)")

    warm_up = WarmUp(detector, 3, detector.rules.use_memory, fail)
    for seed in range(3):
        look(warm_up, detector, seed)
    warm_up.finish()
    assert detector.rules.memory_of("nut") is not None
    assert "the memory of nut is in use all the same: copy.kanoclip cannot be written" in caplog.messages[-1]


def test_tiles(make_toy_bundle, tmp_path):
    folder = make_toy_bundle(tmp_path / "t.kanoclip", grid=GRID, memory_rows=ROWS, tiles=TileGrid(2, 1, 0.25))
    with Detector.load(folder, backend="onnxruntime", threads=1) as detector:
        warm_up = WarmUp(detector, 5, detector.rules.use_memory)
        for seed in range(5):
            look(warm_up, detector, seed, None, size=(64, 40))
        warm_up.finish()
        assert detector.rules.memory_of().tiles == TileGrid(2, 1, 0.25)


def test_what_cannot_work_is_refused_at_the_start(make_toy_bundle, tmp_path, detector, monkeypatch):
    check_warm_up(detector, "nut", 3)
    with pytest.raises(SettingsError, match="a warm-up of 2 frames: it takes 3 at least"):
        check_warm_up(detector, "nut", 2)
    with pytest.raises(SettingsError, match="does not fit into memory: use 256140 at most"):
        check_warm_up(detector, "nut", 10**6)
    warm_up = WarmUp(detector, 3, detector.rules.use_memory)
    for seed in range(3):
        look(warm_up, detector, seed)
    warm_up.finish()
    with pytest.raises(SettingsError, match=r"has a memory of nut already: leave out --warm-up"):
        check_warm_up(detector, "nut", 3)
    check_warm_up(detector, "bolt", 3)
    with (
        Detector.load(make_toy_bundle(tmp_path / "plain.kanoclip", grid=GRID), backend="onnxruntime") as plain,
        pytest.raises(MemoryFileError, match="takes no reference memory: export it again"),
    ):
        check_warm_up(plain, "object", 3)


def test_of_many_frames_that_are_left_out_the_first_are_named(detector, monkeypatch):
    learned = []
    warm_up = WarmUp(detector, 40, detector.rules.use_memory, learned.append)
    for seed in range(40):
        look(warm_up, detector, seed, odd=seed % 8 == 3)
    warm_up.finish()
    (found,) = learned
    out = found.left_out
    assert sorted(out) == ["11.png", "19.png", "27.png", "3.png", "35.png"]
    assert f"left out: 5 frames ({'; '.join(out)}) and" in found.sentence()
    monkeypatch.setattr(module, "MOST_NAMES", 2)
    assert f"left out: 5 frames ({out[0]}; {out[1]}; and 3 more) and" in found.sentence()
