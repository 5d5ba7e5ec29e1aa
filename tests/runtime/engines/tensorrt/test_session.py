"""Two batches in flight on a GPU of host memory (see conftest.py): one is computed while another one is decided."""

from __future__ import annotations

import threading
import weakref
from itertools import pairwise

import numpy as np
import pytest

from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.engines.onnxruntime.backend import OnnxRuntimeBackend
from kanoclip.runtime.engines.tensorrt.backend import TensorRtBackend
from kanoclip.runtime.errors import DeviceLostError
from kanoclip.runtime.sinks import BaseSink
from kanoclip.runtime.sources import BaseSource
from kanoclip.runtime.stream.config import PipelineConfig
from kanoclip.runtime.stream.pipeline import Pipeline
from kanoclip.runtime.system.queues import Policy
from kanoclip.runtime.types import Frame


@pytest.fixture
def make_backend(make_machine, builds):
    """A backend on a machine, with nothing in the order of its work yet."""

    def make(flavour="tensorrt", **options):
        machine = make_machine(flavour, samples=0, **options)
        backend = TensorRtBackend(machine.bundle, flavour, "cuda", lambda step, share: None)
        machine.cuda.order.clear()
        return machine, backend

    return make


def frames(seed, rows=1):
    return np.random.default_rng(seed).integers(0, 256, (rows, 32, 32, 3), np.uint8)


def plain(machine, seed, rows=1, memory=None):
    """What the CPU answers."""
    return OnnxRuntimeBackend(machine.bundle, "cpu", tensorrt=False, threads=1).run(frames(seed, rows), None, memory)


def assert_same(found, expected):
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("options", [{}, {"max_batch": 3, "dynamic": True}], ids=str)
def test_a_batch_begins_before_the_one_before_it_is_collected(make_backend, flavour, integrated, options):
    machine, backend = make_backend(flavour, integrated=integrated, **options)
    assert backend.in_flight == 2
    sizes = [2, 3, 2, 1, 2, 3, 3, 1] if options else [1] * 8
    flying = [backend.submit(frames(0, sizes[0]), None)]
    for seed, rows in enumerate(sizes[1:], 1):
        flying.append(backend.submit(frames(seed, rows), None))
        assert_same(flying.pop(0)(), plain(machine, seed - 1, sizes[seed - 1]))
    assert_same(flying.pop()(), plain(machine, 7, sizes[7]))
    order = machine.cuda.order
    streams = [stream for what, stream in order if what == "start"]
    assert len(set(streams)) == 2 and all(one != other for one, other in pairwise(streams))
    expected = [("start", streams[0])]
    for before, after in pairwise(streams):
        expected += [("start", after), ("wait", before)]
    assert order == [*expected, ("wait", streams[-1])]
    assert bool(machine.cuda.launches) is (flavour == "tensorrt")
    backend.close()
    assert not machine.cuda.memory and not machine.cuda.graphs and not machine.cuda.queues


def test_one_batch_after_the_other_uses_one_stream(make_backend):
    machine, backend = make_backend()
    for seed in range(3):
        assert_same(backend.run(frames(seed), None), plain(machine, seed))
    assert len({stream for _, stream in machine.cuda.order}) == 1


def test_what_another_thread_wants_meanwhile_waits_for_the_oldest_whose_answers_are_held(make_backend, toy_descriptors):
    machine, backend = make_backend(grid=(4, 8), memory_rows=16)
    flying = [backend.submit(frames(seed), None) for seed in range(2)]
    np.testing.assert_allclose(backend.describe(frames(7)), toy_descriptors(frames(7), (4, 8)), atol=1e-6)
    assert [what for what, _ in machine.cuda.order] == ["start", "start", "wait", "start", "wait"]
    assert_same(backend.run(frames(8), None), plain(machine, 8))
    third = backend.submit(frames(2), None)
    for seed, collect in enumerate([*flying, third]):
        assert_same(collect(), plain(machine, seed))


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("integrated", [False, True])
def test_a_memory_does_not_change_under_a_batch_in_flight(make_backend, make_memory, flavour, integrated):
    machine, backend = make_backend(flavour, integrated=integrated, grid=(4, 8), memory_rows=16)
    memories = [make_memory(5, 1), make_memory(16, 2), None, make_memory(3, 3)]
    used = [memories[number] for number in (0, 1, 2, 0, 0, 3, 3, 3, 1)]
    flying = [backend.submit(frames(0), None, used[0])]
    for seed, memory in enumerate(used[1:], 1):
        flying.append(backend.submit(frames(seed), None, memory))
        assert_same(flying.pop(0)(), plain(machine, seed - 1, memory=used[seed - 1]))
    assert_same(flying.pop()(), plain(machine, len(used) - 1, memory=used[-1]))


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("call", ["cudaMemcpyAsync", "cudaStreamQuery", "execute"])
@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("point", ["second submit", "first collect", "second collect"])
def test_a_gpu_lost_with_two_in_flight_leaves_a_new_start_possible(make_backend, flavour, call, recorded, point):
    machine, backend = make_backend(flavour)

    def lose():
        machine.trt.fails = call == "execute"
        # A recorded run makes no other call until it is waited for.
        machine.cuda.fail |= {call: 719} if call == "cudaStreamQuery" else {call: 719, "cudaGraphLaunch": 719}

    for seed in range(2 if recorded else 0):
        ready = [backend.submit(frames(seed), None) for _ in range(2)]
        assert all(np.isfinite(collect()[1]).all() for collect in ready)
    first = backend.submit(frames(0), None)
    with pytest.raises(DeviceLostError, match="dmesg"):
        if point == "second submit":
            lose()
        second = backend.submit(frames(1), None)
        if point == "second collect":
            assert_same(first(), plain(machine, 0))
        lose()
        (second if point == "second collect" else first)()
        backend.run(frames(2), None)  # what is only met where a run begins
    backend.close()
    assert machine.cuda.resets == 1
    machine.trt.fails = False
    before = len(machine.trt.contexts)
    again = TensorRtBackend(machine.bundle, flavour, "cuda", lambda step, share: None)
    assert len(machine.trt.contexts) == before + 2, "both are made anew"
    flying = [again.submit(frames(seed), None) for seed in range(2)]
    for seed, collect in enumerate(flying):
        assert_same(collect(), plain(machine, seed))
    again.close()


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
def test_contexts_go_before_a_lost_gpu_is_reset_whatever_still_holds_a_batch(make_backend, monkeypatch, flavour):
    machine, backend = make_backend(flavour)
    assert_same(backend.run(frames(0), None), plain(machine, 0))
    first, second = backend.submit(frames(0), None), backend.submit(frames(1), None)
    left, alive = [weakref.ref(context) for context in machine.trt.contexts], []
    machine.trt.contexts.clear()
    reset = machine.cuda.cudaDeviceReset

    def note():
        alive.append([one for one in left if one() is not None])
        return reset()

    monkeypatch.setattr(machine.cuda, "cudaDeviceReset", note)
    machine.cuda.fail["cudaStreamQuery"] = 719
    try:
        first()
    except DeviceLostError as error:  # its traceback lives while the engine is made anew
        backend.close()
        assert error.__traceback__ is not None and second is not None
    assert alive == [[]]


def test_closing_waits_for_what_is_computed(make_backend):
    machine, backend = make_backend()
    for seed in range(2):
        backend.submit(frames(seed), None)
    backend.close()
    assert [what for what, _ in machine.cuda.order] == ["start", "start", "wait", "wait"]
    assert not machine.cuda.memory and machine.cuda.resets == 0


def test_a_gpu_without_room_for_two_computes_one_after_the_other(make_machine, builds, monkeypatch, caplog):
    machine = make_machine("tensorrt", samples=0)
    allocate, calls = machine.cuda.cudaMalloc, []

    def first_only(size):
        calls.append(size)
        return allocate(size) if len(calls) <= 3 else (2, None)  # a frame, a map and a score

    monkeypatch.setattr(machine.cuda, "cudaMalloc", first_only)
    backend = TensorRtBackend(machine.bundle, "tensorrt", "cuda", lambda step, share: None)
    assert backend.in_flight == 1 and len(machine.cuda.queues) == 1
    assert "tensorrt-cuda computes one frame after the other" in caplog.text
    flying = [backend.submit(frames(seed), None) for seed in range(2)]
    for seed, collect in enumerate(flying):
        assert_same(collect(), plain(machine, seed))
    backend.close()
    assert not machine.cuda.memory


class Images(BaseSource):
    name, fps, root, live = "images", None, None, False

    def frames(self):
        for index in range(12):
            yield Frame(index, "images", 1.7e9, frames(index)[0], 1.0)

    def close(self):
        pass


class Scores(BaseSink):
    name, shows = "scores", False

    def __init__(self):
        self.found = []

    def write(self, frame, detection):
        self.found.append((frame.index, detection.score))

    def skip(self, bad):
        raise AssertionError(bad)

    def close(self):
        pass


@pytest.mark.parametrize("options", [{}, {"max_batch": 3, "dynamic": True}], ids=str)
@pytest.mark.parametrize("lost_at", [None, 0, 1, 3, 6])
def test_a_stream_over_a_gpu_that_is_lost_with_two_in_flight(make_backend, monkeypatch, options, lost_at):
    machine, backend = make_backend(**options)
    expected = [plain(machine, seed)[1][0] for seed in range(12)]
    query, asked = machine.cuda.cudaStreamQuery, []

    def lose_once(stream):
        asked.append(stream)
        if len(asked) - 1 == lost_at:
            machine.cuda.fail["cudaStreamQuery"] = 719  # until the GPU is reset
        return query(stream)

    monkeypatch.setattr(machine.cuda, "cudaStreamQuery", lose_once)

    def revive():
        return TensorRtBackend(machine.bundle, "tensorrt", "cuda", lambda step, share: None)

    detector, sink = Detector(machine.bundle, backend, revive=revive), Scores()
    config = PipelineConfig(Policy.WAIT, batch=detector.batch_size, in_flight=detector.in_flight)
    Pipeline(Images(), detector, [sink], config).run()
    assert [index for index, _ in sink.found] == list(range(12))
    np.testing.assert_allclose([score for _, score in sink.found], expected, atol=1e-5)
    assert machine.cuda.resets == (0 if lost_at is None else 1)
    detector.close()
    assert not machine.cuda.memory and not machine.cuda.queues


@pytest.mark.parametrize("lost_at", [4, 9, 15])
def test_another_thread_uses_the_engine_of_a_stream_whose_gpu_is_lost(
    make_backend, monkeypatch, toy_descriptors, lost_at
):
    """Whichever of the two threads meets the loss makes the engine anew, once, and neither misses an answer."""
    machine, backend = make_backend(grid=(4, 8))
    expected = [plain(machine, seed)[1][0] for seed in range(12)]
    query, asked, made, found = machine.cuda.cudaStreamQuery, [], [], []

    def lose_once(stream):
        asked.append(stream)
        if len(asked) - 1 == lost_at:
            machine.cuda.fail["cudaStreamQuery"] = 719
        return query(stream)

    monkeypatch.setattr(machine.cuda, "cudaStreamQuery", lose_once)

    def revive():
        made.append(threading.current_thread().name)
        return TensorRtBackend(machine.bundle, "tensorrt", "cuda", lambda step, share: None)

    detector, sink = Detector(machine.bundle, backend, revive=revive), Scores()

    def describe():
        found.extend(detector.describe([frames(seed)[0]]) for seed in range(8))

    other = threading.Thread(target=describe)
    other.start()
    Pipeline(Images(), detector, [sink], PipelineConfig(Policy.WAIT, in_flight=detector.in_flight)).run()
    other.join(30)
    assert [index for index, _ in sink.found] == list(range(12))
    np.testing.assert_allclose([score for _, score in sink.found], expected, atol=1e-5)
    for seed, mine in enumerate(found):
        np.testing.assert_allclose(mine, toy_descriptors(frames(seed), (4, 8)), atol=1e-6)
    assert len(found) == 8 and len(made) == machine.cuda.resets == 1
    detector.close()
    assert not machine.cuda.memory
