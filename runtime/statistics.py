"""Running figures in bounded memory: a stream may run for months."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

import numpy as np

RESERVOIR = 1024
WINDOW = 256


@dataclass(frozen=True, slots=True)
class StageSummary:
    """Cost of one stage over a whole run.

    Attributes:
        name: capture, resize, inference, decide, or a sink's name.
        count: Frames measured.
        mean: Milliseconds a frame, exact.
        p50: Median in milliseconds; exact up to `RESERVOIR` frames, then from a uniform sample of that size.
        p95: 95th percentile in milliseconds, likewise.
        p99: 99th percentile in milliseconds, likewise.
        cpu: Mean processor time of the stage's own thread in milliseconds a frame; None where it was not measured, as
            for inference, which an engine's threads or a GPU do. Unlike wall time it does not grow when threads share
            a core.
    """

    name: str
    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    cpu: float | None = None


class StageStats:
    """Mean and percentiles of one stage. Written by one thread; a reader may see a value one frame old."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._count = 0
        self._total = 0.0
        self._cpu_count = 0
        self._cpu_total = 0.0
        self._sample: list[float] = []
        self._random = random.Random(0)  # a fixed seed: two runs over the same timings report the same figures

    def add(self, milliseconds: float) -> None:
        """Counts one frame."""
        self._count += 1
        self._total += milliseconds
        if len(self._sample) < RESERVOIR:
            self._sample.append(milliseconds)
        else:
            slot = self._random.randrange(self._count)
            if slot < RESERVOIR:
                self._sample[slot] = milliseconds

    def add_cpu(self, milliseconds: float) -> None:
        """Counts one frame's processor time."""
        self._cpu_count += 1
        self._cpu_total += milliseconds

    def summary(self) -> StageSummary:
        """The figures so far; zeros when nothing was measured."""
        sample = list(self._sample)
        if not sample:
            return StageSummary(self.name, 0, 0.0, 0.0, 0.0, 0.0)
        p50, p95, p99 = (float(value) for value in np.percentile(sample, [50, 95, 99]))
        cpu = self._cpu_total / self._cpu_count if self._cpu_count else None
        return StageSummary(self.name, self._count, self._total / self._count, p50, p95, p99, cpu)


class SlidingWindow:
    """Rate and latency percentiles over the last `WINDOW` frames, for the live status line."""

    def __init__(self) -> None:
        self._times: deque[tuple[float, float]] = deque(maxlen=WINDOW)

    def add(self, now: float, latency_ms: float) -> None:
        """Counts a frame.

        Args:
            now: Monotonic time in seconds at which it was finished.
            latency_ms: How long it took.
        """
        self._times.append((now, latency_ms))

    def figures(self) -> tuple[float, float, float, float]:
        """Frames per second, p50, p95 and p99 of the latency in milliseconds; zeros when too little is known."""
        rows = self._times.copy()
        if not rows:
            return 0.0, 0.0, 0.0, 0.0
        elapsed = rows[-1][0] - rows[0][0]
        fps = (len(rows) - 1) / elapsed if elapsed > 0 else 0.0
        p50, p95, p99 = np.percentile([latency for _, latency in rows], [50, 95, 99])
        return fps, float(p50), float(p95), float(p99)
