"""Latency and throughput: all runners on the same frames, in turns, so that what disturbs one disturbs all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from kanoclip.benchmarks.bench.journal import Journal
from kanoclip.benchmarks.bench.runners.runners import FrameRuns, Runner, first_batch, tiles_of
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.engines.autoselect import PAUSE_S

PERCENTILES = (50, 90, 95, 99)
BATCHES = (1, 2, 4, 8)
WARMUP_S = 0.5
"""Of runs on a GPU before they count."""
Work = Callable[[], object]
Tick = Callable[[str], None]
"""Called with the name of what has just been measured."""


def warm_up(run: Work, runs: int, seconds: float) -> None:
    """Runs something so often, and for so long: a GPU's clocks rise within the first tenths of a second."""
    until = time.perf_counter() + seconds
    count = 0
    while count < runs or time.perf_counter() < until:
        run()
        count += 1


def take_turns(
    work: Mapping[str, Work],
    rounds: int,
    warmup: int,
    journal: Journal,
    section: str,
    tick: Tick,
    on_gpu: frozenset[str] = frozenset(),
) -> dict[str, list[float]]:
    """Milliseconds of every run, A B A B.

    Args:
        work: One run of each.
        rounds: Runs of each that count.
        warmup: Runs before them; none where all rounds are known already.
        journal: Keeps each round.
        section: Its name there.
        tick: Called after each round.
        on_gpu: Names of what runs on a GPU: it is warmed up by time, and no pause before a run lets its clocks fall.

    Returns:
        Of each, one value a round.
    """

    def one_round() -> list[float]:
        found = []
        for name, run in work.items():
            if name not in on_gpu:
                time.sleep(PAUSE_S)  # ONNX Runtime's threads go on spinning for a while after a run of theirs
            started = time.perf_counter()
            run()
            found.append((time.perf_counter() - started) * 1e3)
        return found

    pieces = [f"{section}/{number}" for number in range(rounds)]
    if not all(journal.knows(piece) for piece in pieces):
        for name, run in work.items():
            warm_up(run, warmup, WARMUP_S if name in on_gpu and warmup else 0.0)
    spent: dict[str, list[float]] = {name: [] for name in work}
    for piece in pieces:
        for name, milliseconds in zip(work, journal.once(piece, one_round), strict=True):
            spent[name].append(milliseconds)
        tick(section)
    return spent


def percentiles(times: Sequence[float]) -> dict[str, float]:
    """Of milliseconds, by name: `p50_ms` and so on."""
    found = np.percentile(times, PERCENTILES)
    return {f"p{share}_ms": float(value) for share, value in zip(PERCENTILES, found, strict=True)}


def measure_latency(
    bundle: Bundle, runners: Sequence[Runner], batch: int, rounds: int, warmup: int, journal: Journal, tick: Tick
) -> dict[str, list[float]]:
    """Milliseconds of every run on `batch` frames, uint8 on the host to map and score on the host: copies count."""
    runs = FrameRuns.of(bundle, batch)
    work: dict[str, Work] = {runner.name: partial(runs.run, runner.backend) for runner in runners}
    return take_turns(work, rounds, warmup, journal, "latency", tick, _on_gpu(runners))


def _on_gpu(runners: Sequence[Runner]) -> frozenset[str]:
    return frozenset(runner.name for runner in runners if runner.device != "cpu")


def batch_sizes(bundle: Bundle) -> list[int]:
    """Frames that throughput is measured at: 1, 2, 4, 8 as far as the graph takes all their tiles."""
    first, most = first_batch(bundle), bundle.manifest.max_batch // tiles_of(bundle)
    return [size for size in BATCHES if size <= max(most, 1)] if bundle.manifest.dynamic_batch else [first]


def measure_batches(
    bundle: Bundle, runners: Sequence[Runner], rounds: int, journal: Journal, tick: Tick
) -> dict[str, dict[int, float]]:
    """Fps of each runner at each batch size, from the median run."""
    sizes = batch_sizes(bundle)
    work: dict[str, Work] = {}
    on_gpu: set[str] = set()
    for runner in runners:
        for size in sizes:
            work[f"{runner.name}@{size}"] = partial(FrameRuns.of(bundle, size).run, runner.backend)
            on_gpu |= {f"{runner.name}@{size}"} if runner.device != "cpu" else set()
    spent = take_turns(work, rounds, 1, journal, "batches", tick, frozenset(on_gpu))
    return {
        runner.name: {size: size * 1e3 / float(np.median(spent[f"{runner.name}@{size}"])) for size in sizes}
        for runner in runners
    }


def drift(bundle: Bundle, runners: Sequence[Runner], batch: int) -> dict[str, dict[str, float] | None]:
    """How far each runner's answers are from the most exact engine's: the first in float32, else the first.

    None for torch on other weights than the bundle's.
    """
    frames, indices = FrameRuns.of(bundle, batch).batches[0]
    engines = [runner for runner in runners if not runner.is_torch]
    engine = next((runner for runner in engines if "fp32" in runner.precisions), engines[0] if engines else None)
    found: dict[str, dict[str, float] | None] = {}
    reference = None if engine is None else [np.array(part) for part in engine.backend.run(frames, indices)]
    for runner in runners:
        if reference is None or not getattr(runner.backend, "same_weights", True):
            found[runner.name] = None
            continue
        maps, scores = runner.backend.run(frames, indices)
        found[runner.name] = {
            "map": float(np.abs(maps - reference[0]).max()),
            "score": float(np.abs(scores - reference[1]).max()),
        }
    return found
