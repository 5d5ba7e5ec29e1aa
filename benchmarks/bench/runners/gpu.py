"""Where a TensorRT engine's run goes on the GPU, by its own clock, with the columns that trtexec has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from kanoclip.benchmarks.bench.journal import Journal
from kanoclip.benchmarks.bench.runners.runners import Runner, batch_of
from kanoclip.benchmarks.bench.turns import WARMUP_S, Tick, warm_up
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.engines.tensorrt.backend import TensorRtBackend

Times = dict[str, float | None]
"""Milliseconds by the names of `GpuTimes`."""
OFF, ON = "graph_off", "graph_on"


def measure_gpu(
    bundle: Bundle, runners: Sequence[Runner], rounds: int, journal: Journal, tick: Tick
) -> dict[str, dict[str, Times]]:
    """Median times of a run of the graph, without a pause between two runs.

    Args:
        bundle: What runs.
        runners: Those that are no TensorRT engine are left out.
        rounds: Runs that count.
        journal: Keeps each runner's medians.
        tick: Called after each.

    Returns:
        Of each TensorRT runner, by OFF and where it has recorded a CUDA graph by ON.
    """
    rows = 1 if bundle.manifest.dynamic_batch else bundle.manifest.max_batch
    frames, indices = batch_of(bundle, rows)

    def measure(backend: TensorRtBackend, *, graph: bool) -> Times:
        warm_up(lambda: backend.run(frames, indices), 1, WARMUP_S)
        found = [asdict(backend.time(frames, indices, graph=graph)) for _ in range(rounds)]
        return {
            name: None if found[0][name] is None else float(np.median([one[name] for one in found]))
            for name in found[0]
        }

    reported: dict[str, dict[str, Times]] = {}
    for runner in runners:
        backend = runner.backend
        if not isinstance(backend, TensorRtBackend):
            continue
        reported[runner.name] = {}
        for name, graph in ((OFF, False), (ON, True)):
            if graph and rows not in backend.recorded:
                continue
            piece = f"gpu/{runner.name}/{name}"
            reported[runner.name][name] = journal.once(piece, lambda b=backend, g=graph: measure(b, graph=g))  # type: ignore[misc]
            tick("gpu")
    return reported
