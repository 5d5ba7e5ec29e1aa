from __future__ import annotations

from types import SimpleNamespace

import pytest

from kanoclip.benchmarks.bench import turns
from kanoclip.benchmarks.bench.journal import Journal
from kanoclip.benchmarks.bench.reports.wording import _gpu
from kanoclip.benchmarks.bench.runners import gpu
from kanoclip.benchmarks.bench.runners.gpu import measure_gpu
from kanoclip.benchmarks.bench.runners.runners import Runner
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.engines.tensorrt.backend import TensorRtBackend
from kanoclip.runtime.engines.tensorrt.execution import GpuTimes


class Timed(TensorRtBackend):
    """An engine whose runs take 9, 1, 2 ms and so on: the median counts."""

    def __init__(self, graph):
        self.graph, self.runs, self.timed = graph, 0, []

    @property
    def recorded(self):
        return (1,) if self.graph else ()

    def run(self, frames, class_index, memory=None):
        self.runs += 1

    def time(self, frames, class_index, *, graph):
        assert self.runs > 0, "warmed up"
        self.timed.append(graph)
        spent = (9.0, 1.0, 2.0)[len(self.timed) % 3]
        return GpuTimes(0.1, spent) if graph else GpuTimes(0.2, spent, 0.5, spent - 1, 0.5)


def test_each_way_of_starting_a_run_by_its_medians(toy_bundle, monkeypatch):
    monkeypatch.setattr(gpu, "WARMUP_S", 0)
    full, rtx = Timed(graph=True), Timed(graph=False)
    other = SimpleNamespace()
    runners = [
        Runner(name, name, backend, "cuda", ("fp16",))
        for name, backend in (("tensorrt-cuda", full), ("tensorrt-rtx-cuda", rtx), ("onnxruntime-cuda", other))
    ]
    found = measure_gpu(Bundle.open(toy_bundle), runners, 3, Journal(None, {}), lambda part: None)
    plain = {"enqueue": 0.2, "total": 2.0, "upload": 0.5, "compute": 1.0, "download": 0.5}
    recorded = {"enqueue": 0.1, "total": 2.0, "upload": None, "compute": None, "download": None}
    assert found == {
        "tensorrt-cuda": {"graph_off": plain, "graph_on": recorded},
        "tensorrt-rtx-cuda": {"graph_off": plain},
    }
    assert full.timed == [False] * 3 + [True] * 3
    shown = _gpu({"runners": {name: {"gpu_ms": times} for name, times in found.items()}})
    assert shown.rows[1] == ["tensorrt-cuda, graph on", "0.100", "-", "-", "-", "2.000"] and len(shown.rows) == 3
    assert _gpu({"runners": {"onnxruntime-cuda": {}}}) is None


@pytest.mark.parametrize(("runs", "seconds", "expected"), [(3, 0.0, 3), (0, 0.0, 0), (1, 0.45, 5)])
def test_warming_up_takes_both_runs_and_time(monkeypatch, runs, seconds, expected):
    now, count = [0.0], []

    def run():
        count.append(1)
        now[0] += 0.1

    monkeypatch.setattr(turns, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    turns.warm_up(run, runs, seconds)
    assert len(count) == expected
