"""From what a run has counted to the figures that it reports: rates, percentiles, progress and summary."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kanoclip.runtime.stream.control.progress import Progress, RunSummary, SourceProgress, StageSummary
from kanoclip.runtime.stream.counters import SourceTally, StageStats, Tally

SILENCE_S = 1.0
"""A stream that is quiet for longer, and for longer than two of its frames take, has slowed down."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles in milliseconds over the last `counters.WINDOW` frames; zeros before the first."""

    p50: float
    p95: float
    p99: float


def cost_of(stage: StageStats) -> StageSummary:
    """What a stage has cost so far; zeros when nothing was measured."""
    sample = stage.sample.copy()  # at once, whoever writes
    if not sample:
        return StageSummary(stage.name, 0, 0.0, 0.0, 0.0, 0.0)
    p50, p95, p99 = np.percentile(sample, [50, 95, 99])
    cpu = stage.cpu_total / stage.cpu_count if stage.cpu_count else None
    return StageSummary(stage.name, stage.count, stage.total / stage.count, float(p50), float(p95), float(p99), cpu)


def rate_of(times: deque[tuple[float, float]], now: float) -> float:
    """Frames per second; zero when too little is known. It sinks while nothing comes.

    Args:
        times: As `SourceTally.times`.
        now: Monotonic time in seconds.
    """
    if len(times) < 2:
        return 0.0
    count, first, last = len(times), times[0][0], times[-1][0]
    if last <= first:
        return 0.0
    fps = (count - 1) / (last - first)
    silence = now - last
    return min(fps, 1.0 / silence) if silence > max(SILENCE_S, 2.0 / fps) else fps


def latency_of(times: deque[tuple[float, float]]) -> Latency:
    """How long the last frames took; `times` as `SourceTally.times`."""
    rows = times.copy()
    if not rows:
        return Latency(0.0, 0.0, 0.0)
    p50, p95, p99 = np.percentile([latency for _, latency in rows], [50, 95, 99])
    return Latency(float(p50), float(p95), float(p99))


def progress_of(tally: Tally, pushed_out: Sequence[int], sink_dropped: dict[str, int], *, paused: bool) -> Progress:
    """The state of a run now.

    Args:
        tally: Its counts.
        pushed_out: By source, items that newer ones pushed out of the detector's mailbox.
        sink_dropped: Results that a sink lost, by the sink's name.
        paused: Whether frames are let go by.
    """
    now = time.monotonic()
    sources = _sources(tally, pushed_out, now)
    latency = latency_of(tally.times)
    return Progress(
        frames=sum(source.frames for source in sources),
        anomalous=sum(source.anomalous for source in sources),
        skipped=sum(source.skipped for source in sources),
        dropped=sum(source.dropped for source in sources),
        sink_dropped=sink_dropped,
        fps=rate_of(tally.times, now),
        latency_p50=latency.p50,
        latency_p95=latency.p95,
        latency_p99=latency.p99,
        last_score=tally.last_score,
        paused=paused,
        sources=tuple(one for one, counts in zip(sources, tally.sources, strict=False) if not counts.removed),
        last_threshold=tally.last_threshold,
    )


def summary_of(
    tally: Tally,
    pushed_out: Sequence[int],
    sink_dropped: dict[str, int],
    sinks: Sequence[StageStats],
    *,
    interrupted: bool,
) -> RunSummary:
    """What a run has done so far; arguments as of `progress_of`, with the cost of each sink."""
    now = tally.ended or time.monotonic()
    sources = _sources(tally, pushed_out, now)
    return RunSummary(
        frames=sum(source.frames for source in sources),
        anomalous=sum(source.anomalous for source in sources),
        skipped=sum(source.skipped for source in sources),
        dropped=sum(source.dropped for source in sources),
        sink_dropped=sink_dropped,
        wall_s=now - tally.started,
        stages=tuple(cost_of(stage) for stage in (*tally.stages.values(), *sinks)),
        interrupted=interrupted,
        sources=sources,
    )


def _sources(tally: Tally, pushed_out: Sequence[int], now: float) -> tuple[SourceProgress, ...]:
    # One that joins at this moment is left out until the next time.
    return tuple(_source(counts, count, now) for counts, count in zip(tally.sources, pushed_out, strict=False))


def _source(counts: SourceTally, pushed_out: int, now: float) -> SourceProgress:
    delivered_at = counts.delivered_at
    health = counts.source.health()
    return SourceProgress(
        name=counts.source.name,
        frames=counts.frames,
        anomalous=counts.anomalous,
        skipped=counts.bad_seen + counts.bad_evicted,
        dropped=pushed_out - counts.bad_evicted,
        fps=rate_of(counts.times, now),
        last_score=counts.last_score,
        last_at=counts.last_at,
        alarm=counts.last_alarm,
        error=counts.error,
        delivered=counts.delivered,
        last_frame_age_s=None if delivered_at is None else max(0.0, now - delivered_at),
        away=None if health is None or health.connected else health.reason,
        reconnects=0 if health is None else health.reconnects,
        score_counts=tuple(counts.score_counts),
        score_sum=counts.score_sum,
        alarms=counts.alarms,
    )
