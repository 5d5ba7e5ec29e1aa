from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from kanoclip.benchmarks.bench import turns
from kanoclip.benchmarks.bench.journal import Journal
from kanoclip.benchmarks.bench.machine.roofline import work_of
from kanoclip.benchmarks.bench.runners.runners import FrameRuns, Runner, first_batch, tiles_title
from kanoclip.benchmarks.bench.turns import batch_sizes, drift, take_turns
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.parts import GraphWork
from kanoclip.runtime.bundle.manifest.tiles import TileGrid


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(turns, "PAUSE_S", 0)


def run(order, rounds, journal):
    work = {name: lambda name=name: order.append(name) for name in "ab"}
    return take_turns(work, rounds, 2, journal, "latency", lambda part: None)


def test_runners_take_turns_and_warmup_does_not_count():
    order = []
    spent = run(order, 3, Journal(None, {}))
    assert order == ["a", "a", "b", "b", *"ababab"]
    assert [len(times) for times in spent.values()] == [3, 3]


def test_a_gpu_is_warmed_up_by_time_and_never_paused(monkeypatch):
    now, slept, order = [0.0], [], []

    def run(name):
        order.append(name)
        now[0] += 0.1

    monkeypatch.setattr(turns, "PAUSE_S", 0.02)
    monkeypatch.setattr(turns, "time", SimpleNamespace(perf_counter=lambda: now[0], sleep=slept.append))
    work = {name: lambda name=name: run(name) for name in ("cpu", "gpu")}
    take_turns(work, 2, 2, Journal(None, {}), "latency", lambda part: None, frozenset({"gpu"}))
    warm = int(turns.WARMUP_S / 0.1)
    assert order == ["cpu", "cpu", *["gpu"] * warm, "cpu", "gpu", "cpu", "gpu"]
    assert slept == [0.02, 0.02], "before the CPU's two rounds alone"


def test_a_run_that_goes_on_warms_up_again_and_measures_what_is_missing(tmp_path):
    with Journal(tmp_path / "j", {}) as journal:
        first = run([], 2, journal)
    order = []
    with Journal(tmp_path / "j", {}) as journal:
        spent = run(order, 3, journal)
    assert order == ["a", "a", "b", "b", "a", "b"]
    assert all(spent[name][:2] == first[name] for name in "ab")
    with Journal(tmp_path / "j", {}) as journal:
        order.clear()
        assert run(order, 3, journal) == spent and order == []


@pytest.mark.parametrize(
    ("precisions", "reference"),
    [((("bf16",), ("fp32",), ("fp32",)), 1), ((("int8", "bf16"), ("int8", "fp32")), 1), ((("fp16",), ("bf16",)), 0)],
)
def test_drift_is_from_the_most_exact_engine(toy_bundle, precisions, reference):
    """The first one is often the fastest, which rounds."""

    def answering(value):
        return lambda frames, indices: (np.full((1, 32, 32), value), np.full(1, value))

    runners = [
        Runner(str(number), "openvino", SimpleNamespace(run=answering(number / 8)), "cpu", kinds)
        for number, kinds in enumerate(precisions)
    ]
    torch = Runner("torch-cpu", "torch", SimpleNamespace(run=answering(0.5), same_weights=False), "cpu", ("fp32",))
    found = drift(Bundle.open(toy_bundle), [torch, *runners], 1)
    assert found.pop("torch-cpu") is None
    assert [one["map"] * 8 for one in found.values()] == [abs(number - reference) for number in range(len(runners))]
    assert all(one["map"] == one["score"] for one in found.values())


@pytest.mark.parametrize(
    ("dynamic", "max_batch", "frames", "runs", "sizes"),
    [
        (False, 3, 1, [3], [1]),
        (False, 1, 1, [1, 1, 1], [1]),
        (False, 4, 1, [4], [1]),
        (False, 7, 2, [7], [2]),
        (True, 2, 1, [2, 1], [1]),
        (True, 24, 1, [3], [1, 2, 4, 8]),
    ],
)
def test_a_frame_is_all_its_tiles(make_toy_bundle, tmp_path, dynamic, max_batch, frames, runs, sizes):
    tiles = TileGrid(3, 1, 0.15)
    bundle = Bundle.open(make_toy_bundle(tmp_path, dynamic=dynamic, max_batch=max_batch, tiles=tiles))
    assert (first_batch(bundle), batch_sizes(bundle), tiles_title(bundle)) == (frames, sizes, "3x1")
    given = []
    backend = SimpleNamespace(run=lambda images, indices: given.append((len(images), indices)))
    FrameRuns.of(bundle, frames).run(backend)
    assert given == [(size, None) for size in runs]


def test_without_tiles_a_run_is_a_batch(make_toy_bundle, tmp_path):
    bundle = Bundle.open(make_toy_bundle(tmp_path / "fixed", max_batch=4, classes=("a", "b")))
    assert (first_batch(bundle), batch_sizes(bundle), tiles_title(bundle)) == (4, [4], None)
    ((frames, indices),) = FrameRuns.of(bundle, 4).batches
    assert frames.shape == (4, 32, 32, 3) and indices.tolist() == [0] * 4
    bundle = Bundle.open(make_toy_bundle(tmp_path / "dynamic", max_batch=4, dynamic=True))
    assert (first_batch(bundle), batch_sizes(bundle)) == (1, [1, 2, 4])


def test_the_work_of_a_frame_is_that_of_all_its_tiles(make_toy_bundle, tmp_path):
    work, tiles = GraphWork(1000, 100, 10), TileGrid(3, 1, 0.15)
    for max_batch, runs in ((3, 1), (2, 2), (1, 3)):
        folder = make_toy_bundle(tmp_path / str(max_batch), max_batch=max_batch, work=work, tiles=tiles)
        assert work_of(Bundle.open(folder)) == (GraphWork(3000, 100 * runs, 30), "")
    assert work_of(Bundle.open(make_toy_bundle(tmp_path / "whole", work=work))) == (work, "")
