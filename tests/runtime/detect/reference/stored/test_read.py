"""The detector with reference memories: which one a frame is scored by, and that all changes with it."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from kanoclip.runtime import Detector
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.detect.reference.memory import Fusion, ReferenceMemory
from kanoclip.runtime.detect.reference.stored.history import put, undo
from kanoclip.runtime.detect.settings.settings import Decision, Settings
from kanoclip.runtime.errors import BackendError, BundleError, FrameError, MemoryFileError
from kanoclip.runtime.types import RegionOfInterest

GRID = (4, 4)
LEFT = RegionOfInterest("left.json", keep=(((0.0, 0.0), (0.45, 0.0), (0.45, 1.0), (0.0, 1.0)),))


@pytest.fixture
def folder(make_toy_bundle, tmp_path):
    return make_toy_bundle(tmp_path / "toy.kanoclip", classes=("object",), grid=GRID, memory_rows=16)


def memory(folder, seed=0, rows=5, gain=0.5, tiles=None):
    """Drawn by a seed; the toy graph's map is the plain one times `gain` with it."""
    rng = np.random.default_rng(seed)
    drawn = rng.random((rows, 3)) + 0.1
    return ReferenceMemory(
        rows=(drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float16),
        image_of=np.zeros(rows, np.int32),
        centre=np.zeros(3, np.float32),
        fusion=Fusion(gain=gain, offset=0, zero_gain=0, zero_offset=0, shift=0),
        descriptor_sha256=Bundle.open(folder).manifest.descriptor.sha256,
        names=("good.png",),
        loo_scores=np.array([0.4], np.float32),
        loo_peaks=np.array([0.4], np.float32),
        created="2026-01-02T03:04:05+00:00",
        tiles=tiles,
    )


def thresholds(image):
    return Thresholds(image, image, 0, "made up", None)


def frame(value=128):
    return np.full((64, 64, 3), value, np.uint8)


def test_a_bundle_s_memory_is_used_from_the_start(folder):
    with Detector.load(folder, backend="onnxruntime") as before:
        plain = before(frame())
        assert before.rules.memory_of() is None
    put(Bundle.open(folder), None, "object", memory(folder), thresholds(0.9))
    with Detector.load(folder, backend="onnxruntime") as detector:
        found = detector(frame())
        assert detector.rules.memory_of("object").names == ("good.png",)
    np.testing.assert_allclose(found.map, plain.map / 2, atol=1e-6)
    assert found.threshold == 0.9 and 0.9 < found.score <= 1.001  # grey is like every drawn colour
    undo(Bundle.open(folder), "object")
    with Detector.load(folder, backend="onnxruntime") as detector:
        again = detector(frame())
    np.testing.assert_array_equal(again.map, plain.map)
    assert (again.score, again.threshold) == (plain.score, plain.threshold)


def test_a_memory_given_while_it_runs(folder):
    with Detector.load(folder, backend="onnxruntime") as detector:
        plain = detector(frame())
        detector.rules.use_memory(None, memory(folder, gain=0.25), thresholds(0.7))
        found = detector(frame())
        np.testing.assert_allclose(found.map, plain.map / 4, atol=1e-6)
        assert found.threshold == 0.7
        detector.rules.decide_by(Settings(flags=Decision(threshold=0.8)))  # the memory stays
        assert detector(frame()).threshold == 0.8
        np.testing.assert_array_equal(detector(frame()).map, found.map)
        detector.rules.use_memory(None, None)
        np.testing.assert_array_equal(detector(frame()).map, plain.map)
        with pytest.raises(FrameError, match="unknown class 'screw'"):
            detector.rules.use_memory("screw", None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"descriptor_sha256": "1" * 64}, r"the memory is not of toy's descriptors: fit it again"),
        ({"tiles": TileGrid(2, 1, 0.0)}, r"the memory is of other tiles than toy: fit it again"),
    ],
)
def test_a_memory_that_does_not_fit_leaves_the_old_one(folder, change, words):
    with Detector.load(folder, backend="onnxruntime") as detector:
        detector.rules.use_memory(None, memory(folder))
        found = detector(frame())
        with pytest.raises(MemoryFileError, match=words):
            detector.rules.use_memory(None, replace(memory(folder), **change))
        np.testing.assert_array_equal(detector(frame()).map, found.map)


def test_a_graph_that_takes_none(make_toy_bundle, tmp_path, folder):
    plain = make_toy_bundle(tmp_path / "plain.kanoclip", grid=GRID)
    with (
        Detector.load(plain, backend="onnxruntime") as detector,
        pytest.raises(MemoryFileError, match="toy takes no reference memory: export it again"),
    ):
        detector.rules.use_memory(None, memory(folder))
    with pytest.raises(BackendError, match="takes no reference memory"):
        detector.backend.run(np.zeros((1, 32, 32, 3), np.uint8), None, memory(folder).tensors())


def test_each_class_has_its_own(make_toy_bundle, tmp_path):
    folder = make_toy_bundle(tmp_path / "two.kanoclip", classes=("bolt", "nut"), grid=GRID, memory_rows=16)
    with Detector.load(folder, backend="onnxruntime") as detector:
        plain = {name: detector(frame(), name) for name in ("bolt", "nut")}
        detector.rules.use_memory("nut", memory(folder, gain=0.25), thresholds(0.7))
        bolt, nut = detector(frame(), "bolt"), detector(frame(), "nut")
    np.testing.assert_array_equal(bolt.map, plain["bolt"].map)
    assert bolt.threshold == plain["bolt"].threshold
    np.testing.assert_allclose(nut.map, plain["nut"].map / 4, atol=1e-6)
    assert nut.threshold == 0.7


def test_with_a_memory_only_the_region_of_interest_is_scored(folder):
    """Without one, half of the score is the whole image's (eq. 12)."""
    image = frame(0)
    image[:, 48:] = 255
    with Detector.load(folder, backend="onnxruntime", settings=Settings(flags=Decision(roi=LEFT))) as detector:
        without = detector(image)
        detector.rules.use_memory(None, memory(folder, gain=1.0))
        found = detector(image)
    assert found.map.max() == 0 and without.map.max() == 0
    assert without.score == pytest.approx(0.5)
    assert found.score < 0.02  # the product, about 1, less the peak outside


def test_a_reload_takes_up_a_new_memory_and_nothing_else(folder):
    with Detector.load(folder, backend="onnxruntime") as detector:
        plain = detector(frame())
        put(Bundle.open(folder), None, "object", memory(folder), thresholds(0.9))
        detector.rules.decide_by(Settings(), detector.bundle.reread())
        np.testing.assert_allclose(detector(frame()).map, plain.map / 2, atol=1e-6)
        assert detector(frame()).threshold == 0.9
        first = detector.bundle
        put(Bundle.open(folder), None, "object", memory(folder, seed=1), thresholds(0.8))
        file = next((folder / "references").glob("*"))
        content = {path: path.read_bytes() for path in (folder / "references").glob("*")}
        for path in content:
            path.write_bytes(b"cut")
        with pytest.raises(BundleError, match="cannot be read again"):
            first.reread()
        for path, data in content.items():
            path.write_bytes(data)
        assert first.reread().manifest.thresholds.image == 0.8 and file.exists()
        (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes() + b" ")
        assert first.reread()  # only memories are looked at again


def test_no_frame_is_scored_by_one_memory_and_decided_by_the_threshold_of_another(folder):
    """Two memories in turns, each with its own threshold, while frames are scored."""
    pairs = [(memory(folder, gain=0.25), 0.3), (memory(folder, gain=0.75), 0.6)]
    with Detector.load(folder, backend="onnxruntime", threads=1) as detector:
        maps = {}
        for one, limit in pairs:
            detector.rules.use_memory(None, one, thresholds(limit))
            maps[limit] = detector(frame()).map.max()
        seen, stop = [], threading.Event()

        def score():
            while not stop.is_set():
                found = detector(frame())
                seen.append((found.threshold, found.map.max()))

        thread = threading.Thread(target=score)
        thread.start()
        for number in range(200):
            one, limit = pairs[number % 2]
            detector.rules.use_memory(None, one, thresholds(limit))
        stop.set()
        thread.join()
    assert seen and all(peak == maps[limit] for limit, peak in seen)
