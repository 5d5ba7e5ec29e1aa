"""Where a memory decides alone, a CPU computes no zero-shot map, and the answers are those of the whole graph."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from kanoclip.runtime.bundle.bundle import Bundle, shipped_bundle
from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.engines import base, create_backend
from kanoclip.runtime.engines.base import FETCHED
from kanoclip.runtime.engines.inputs import Inputs, MemoryTensors, by_distance
from kanoclip.runtime.engines.reference import probe_memory
from kanoclip.runtime.errors import BackendError, BundleError

ENGINES = ["onnxruntime", "openvino"]
SHIPPED = [shipped_bundle(), shipped_bundle().with_name("nano-int8.kanoclip")]


def alone(bundle, seed=0):
    """A memory that decides alone, with numbers that leave the map neither 0 nor 1."""
    memory = probe_memory(bundle.manifest)
    order = np.random.default_rng(seed).permutation(len(memory.rows))
    fusion = np.array([1, 9, 0.7, 0, -3, 0.25, 0, 0], np.float32)
    return MemoryTensors(memory.rows[order], memory.bias[order], memory.centre, fusion)


def frames(bundle, count=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *bundle.manifest.frame_size, 3), np.uint8)


def whole(backend, bundle, given, memory):
    """The same from the graph that computes everything."""
    return backend._fetch(FETCHED, Inputs.of(bundle.manifest, given, None, memory))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("place", SHIPPED, ids=lambda place: place.stem)
def test_the_answers_are_the_whole_graph_s(place, engine, monkeypatch):
    bundle = Bundle.open(place)
    backend = create_backend(bundle, engine, "cpu", threads=1)
    fetched, fetch = [], backend._fetch
    monkeypatch.setattr(backend, "_fetch", lambda names, inputs: fetched.append(names) or fetch(names, inputs))
    kept = []
    for seed in range(3):  # frames and memories change
        given, memory = frames(bundle, seed=seed), alone(bundle, seed)
        maps, scores = backend.run(given, None, memory)
        assert not fetched and maps.dtype == scores.dtype == np.float32
        kept.append(((maps, scores), fetch(FETCHED, Inputs.of(bundle.manifest, given, None, memory))))
    for found, wanted in kept:  # what is the caller's stays what it was
        for mine, theirs in zip(found, wanted, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=2e-6)
    assert kept[0][0][0].std() > 1e-4
    backend.run(frames(bundle), None, replace(alone(bundle), fusion=np.array([1, 9, 0.7, 0.1, 0, 0, 0, 0], np.float32)))
    backend.run(frames(bundle), None)
    assert fetched == [FETCHED, FETCHED], "with a weight, and without a memory, the whole graph runs"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_graph_that_cannot_be_cut_runs_whole(make_toy_bundle, make_memory, toy_answers, tmp_path, engine):
    bundle = Bundle.open(make_toy_bundle(tmp_path, grid=(4, 8), memory_rows=16))
    backend = create_backend(bundle, engine, "cpu", threads=1)
    given, memory = frames(bundle), make_memory(5)
    assert memory.decides_alone
    wanted = toy_answers(given, backend.describe(given), memory)
    for found, right in zip(backend.run(given, None, memory), wanted, strict=True):
        np.testing.assert_allclose(found, right, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("failing", ["is refused", "cannot be loaded"])
def test_where_the_cut_fails_the_whole_graph_runs(engine, failing, monkeypatch):
    bundle = Bundle.open(shipped_bundle())
    tried = []

    def cut(path):
        tried.append(path)
        if failing == "is refused":
            raise BundleError("no ONNX graph")
        return b"\x08\x08"

    monkeypatch.setattr(base, "distance_graph", cut)
    backend = create_backend(bundle, engine, "cpu", threads=1)
    given, memory = frames(bundle), alone(bundle)
    for _ in range(2):
        maps, _ = backend.run(given, None, memory)
        np.testing.assert_array_equal(maps, whole(backend, bundle, given, memory)[0])
    assert len(tried) == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_a_closed_engine(engine):
    bundle = Bundle.open(shipped_bundle())
    backend = create_backend(bundle, engine, "cpu", threads=1)
    backend.run(frames(bundle), None, alone(bundle))
    backend.close()
    with pytest.raises(BackendError, match=f"{engine}-cpu is closed"):
        backend.run(frames(bundle), None, alone(bundle))


@pytest.mark.parametrize("engine", ENGINES)
def test_what_does_not_fit_is_one_line(engine):
    bundle = Bundle.open(shipped_bundle())
    backend = create_backend(bundle, engine, "cpu", threads=1)
    with pytest.raises(BackendError, match=f"{engine}-cpu failed: ") as caught:
        backend.run(frames(bundle)[:, :32], None, alone(bundle))
    assert len(str(caught.value).splitlines()) == 1
    backend.run(frames(bundle), None, alone(bundle))  # and goes on


@pytest.mark.parametrize("engine", ENGINES)
def test_two_workers_at_a_time(engine):
    bundle = Bundle.open(shipped_bundle())
    backend, memory = create_backend(bundle, engine, "cpu", threads=2, workers=2), alone(bundle)
    given = [frames(bundle, seed=seed) for seed in range(6)]
    one_by_one = [backend.run(frame, None, memory) for frame in given]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda frame: backend.run(frame, None, memory), given))
    for mine, theirs in zip(together, one_by_one, strict=True):
        np.testing.assert_allclose(mine[0], theirs[0], atol=2e-6)


def test_the_map_by_distance():
    rng = np.random.default_rng(0)
    distances = rng.uniform(0, 2, (2, 5, 7)).astype(np.float32)
    memory = MemoryTensors(
        np.eye(3, dtype=np.float32),
        np.zeros(3, np.float32),
        np.zeros(3, np.float32),
        np.array([1, 4, 0.5, 0, 9, -1, 0, 0], np.float32),
    )
    maps, scores = by_distance(distances.copy(), memory)
    np.testing.assert_allclose(maps, 1 / (1 + np.exp(-(4 * (distances - 0.5) - 1))), rtol=1e-6)
    np.testing.assert_array_equal(scores, maps.max((1, 2)))
    steep = replace(memory, fusion=np.array([1, 1e6, 1, 0, 0, 0, 0, 0], np.float32))
    ends, _ = by_distance(np.array([[[0.0, 1.0, 2.0]]], np.float32), steep)
    np.testing.assert_array_equal(ends, [[[0, 0.5, 1]]])


@pytest.mark.parametrize(
    "fusion", [[0, 9, 0.7, 0, 0, 0, 0, 0], [1, 9, 0.7, 0.1, 0, 0, 0, 0], [1, 9, 0.7, -0.1, 0, 0, 0, 0]]
)
def test_what_does_not_decide_alone(fusion):
    memory = probe_memory(Bundle.open(shipped_bundle()).manifest)
    assert not replace(memory, fusion=np.array(fusion, np.float32)).decides_alone


def test_tiles_of_a_detector():
    bundle = Bundle.open(shipped_bundle())
    cut = replace(bundle, manifest=replace(bundle.manifest, tiles=TileGrid(2, 1, 0.15)))
    backend, memory = create_backend(cut, "onnxruntime", "cpu", threads=1), alone(cut)
    detector = Detector(cut, backend)
    frame = np.random.default_rng(3).integers(0, 256, (500, 260, 3), np.uint8)
    prepared = detector.prepare(frame)
    outputs = [output for run in detector.graph.run(list(prepared.images), 0, memory) for output in run]
    assert len(outputs) == 2
    for image, output in zip(prepared.images, outputs, strict=True):
        maps, _ = whole(backend, cut, image[None], memory)
        np.testing.assert_allclose(output.map, maps[0], atol=2e-6)
