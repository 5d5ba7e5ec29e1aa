"""Running figures in bounded memory: a stream may run for months."""

from __future__ import annotations

import random
import threading
from collections import deque
from dataclasses import dataclass

import numpy as np

RESERVOIR = 1024
WINDOW = 256
SILENCE_S = 1.0
"""A stream that is quiet for longer, and for longer than two of its frames take, has slowed down."""


@dataclass(frozen=True, slots=True)
class StageSummary:
    """Cost of one stage.

    Attributes:
        name: capture, resize, inference, decide, or a sink's name.
        count: Frames measured.
        mean: Milliseconds a frame over the whole run, exact.
        p50: Median in milliseconds. Of a live stream, over the last `RESERVOIR` frames; else over the whole run: exact
            up to so many frames, then from a uniform sample of that size.
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
    """Mean and percentiles of one stage. Written by one thread, but for `add_both`; a reader may be one frame behind.

    Args:
        name: The stage's.
        recent: Take percentiles over the last frames: for a run without an end they describe the present, not the past.
    """

    def __init__(self, name: str, *, recent: bool = False) -> None:
        self.name = name
        self._count = 0
        self._total = 0.0
        self._cpu_count = 0
        self._cpu_total = 0.0
        self._sample: list[float] = []
        self._last: deque[float] | None = deque(maxlen=RESERVOIR) if recent else None
        self._lock = threading.Lock()  # of several threads that each count both figures
        self._random = random.Random(0)  # a fixed seed: two runs over the same timings report the same figures

    def add(self, milliseconds: float) -> None:
        """Counts one frame."""
        self._count += 1
        self._total += milliseconds
        if self._last is not None:
            self._last.append(milliseconds)
        elif len(self._sample) < RESERVOIR:
            self._sample.append(milliseconds)
        else:
            slot = self._random.randrange(self._count)
            if slot < RESERVOIR:
                self._sample[slot] = milliseconds

    def add_cpu(self, milliseconds: float) -> None:
        """Counts one frame's processor time."""
        self._cpu_count += 1
        self._cpu_total += milliseconds

    def add_both(self, milliseconds: float, cpu_milliseconds: float) -> None:
        """Counts one frame and its processor time; for use by several threads, as two sinks of one name have."""
        with self._lock:
            self.add(milliseconds)
            self.add_cpu(cpu_milliseconds)

    def summary(self) -> StageSummary:
        """The figures so far; zeros when nothing was measured."""
        sample = list(self._sample) if self._last is None else self._last.copy()  # both at once, whoever writes
        if not sample:
            return StageSummary(self.name, 0, 0.0, 0.0, 0.0, 0.0)
        p50, p95, p99 = np.percentile(sample, [50, 95, 99])
        cpu = self._cpu_total / self._cpu_count if self._cpu_count else None
        mean = self._total / self._count
        return StageSummary(self.name, self._count, mean, float(p50), float(p95), float(p99), cpu)


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles in milliseconds over the last `WINDOW` frames; zeros before the first."""

    p50: float
    p95: float
    p99: float


class SlidingWindow:
    """Rate and latency over the last `WINDOW` frames, for those who watch a stream."""

    def __init__(self) -> None:
        self._times: deque[tuple[float, float]] = deque(maxlen=WINDOW)

    def add(self, now: float, latency_ms: float) -> None:
        """Counts a frame.

        Args:
            now: Monotonic time in seconds at which it was finished.
            latency_ms: How long it took.
        """
        self._times.append((now, latency_ms))

    def rate(self, now: float) -> float:
        """Frames per second; zero when too little is known. It sinks while nothing comes.

        Args:
            now: Monotonic time in seconds.
        """
        rows = self._times
        if len(rows) < 2:
            return 0.0
        count, first, last = len(rows), rows[0][0], rows[-1][0]
        if last <= first:
            return 0.0
        fps = (count - 1) / (last - first)
        silence = now - last
        return min(fps, 1.0 / silence) if silence > max(SILENCE_S, 2.0 / fps) else fps

    def latency(self) -> Latency:
        """How long frames took."""
        rows = self._times.copy()
        if not rows:
            return Latency(0.0, 0.0, 0.0)
        p50, p95, p99 = np.percentile([latency for _, latency in rows], [50, 95, 99])
        return Latency(float(p50), float(p95), float(p99))
