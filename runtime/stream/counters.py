"""What a stream counts and measures while it runs."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Sequence

from kanoclip.runtime.sources.base import Source
from kanoclip.runtime.stream.progress import SCORE_BOUNDS, Progress, RunSummary, SourceProgress
from kanoclip.runtime.stream.stats import SlidingWindow, StageStats
from kanoclip.runtime.types import Detection, Frame

STAGES = ("capture", "resize", "inference", "decide")


class SourceTally:
    """Counts of one source.

    Attributes:
        frames: Scored.
        bad_seen: Images that could not be read, counted when it was their turn.
        bad_evicted: Those that a newer frame pushed out of the mailbox; they are not frames that were dropped.
        size: (height, width) of the last scored frame in full; None before the first.
        error: Why the source ended before its end.
        ended: It delivers nothing more.
        removed: It was taken out of the run; its counts stay in the totals.
    """

    def __init__(self, source: Source, window: SlidingWindow) -> None:
        self.frames = self.anomalous = self.bad_seen = self.bad_evicted = self._alarms = 0
        self._delivered = 0
        self._delivered_at: float | None = None
        self.size: tuple[int, int] | None = None
        self.error: str | None = None
        self.ended = self.removed = False
        self._source = source
        self._window = window
        self._last_score: float | None = None
        self._last_at: float | None = None
        self._alarm: bool | None = None
        self._score_counts = [0] * (len(SCORE_BOUNDS) + 1)
        self._score_sum = 0.0

    def measure_by(self, window: SlidingWindow) -> None:
        """Takes its rate from another window."""
        self._window = window

    def deliver(self) -> None:
        """Counts what came from the source, readable or not, before any of it is dropped."""
        self._delivered += 1
        self._delivered_at = time.monotonic()

    def count(self, frame: Frame, detection: Detection) -> None:
        """Counts a scored frame."""
        self.frames += 1
        self.anomalous += detection.is_anomalous
        self.size = frame.full_size or frame.image.shape[:2]
        self._alarms += bool(detection.alarm) and not self._alarm
        self._last_score, self._last_at, self._alarm = detection.score, frame.captured_at, detection.alarm
        if math.isfinite(detection.score):
            self._score_counts[bisect_left(SCORE_BOUNDS, detection.score)] += 1
            self._score_sum += float(detection.score)

    def progress(self, pushed_out: int, now: float) -> SourceProgress:
        """The state now.

        Args:
            pushed_out: Its items that newer ones pushed out of the detector's mailbox.
            now: Monotonic time in seconds.
        """
        delivered_at = self._delivered_at
        health = self._source.health()
        return SourceProgress(
            name=self._source.name,
            frames=self.frames,
            anomalous=self.anomalous,
            skipped=self.bad_seen + self.bad_evicted,
            dropped=pushed_out - self.bad_evicted,
            fps=self._window.rate(now),
            last_score=self._last_score,
            last_at=self._last_at,
            alarm=self._alarm,
            error=self.error,
            delivered=self._delivered,
            last_frame_age_s=None if delivered_at is None else max(0.0, now - delivered_at),
            away=None if health is None or health.connected else health.reason,
            reconnects=0 if health is None else health.reconnects,
            score_counts=tuple(self._score_counts),
            score_sum=self._score_sum,
            alarms=self._alarms,
        )


class Tally:
    """Counts of one run. Each is written by one thread at a time; a reader may see a value one frame old.

    Args:
        sources: The run's sources; their names and their health are reported.
        recent: As `StageStats` takes it.

    Attributes:
        stages: Cost of the stages up to the verdict.
        sources: Counts by source.
    """

    def __init__(self, sources: Sequence[Source], *, recent: bool) -> None:
        self.stages = {name: StageStats(name, recent=recent) for name in STAGES}
        self._window = SlidingWindow()
        # The rate of a single source is the run's: one window serves both.
        self._windows = [SlidingWindow() for _ in sources] if len(sources) > 1 else [self._window]
        self.sources = [SourceTally(*both) for both in zip(sources, self._windows, strict=True)]
        self._last_score: float | None = None
        self._last_threshold: float | None = None
        self._started = time.monotonic()
        self._ended: float | None = None

    def add(self, source: Source) -> None:
        """Counts one more source from now on."""
        if self._windows[0] is self._window:
            self._windows[0] = SlidingWindow()
            self.sources[0].measure_by(self._windows[0])
        self._windows.append(SlidingWindow())
        self.sources.append(SourceTally(source, self._windows[-1]))

    def start(self) -> None:
        """Sets the clock to zero."""
        self._started = time.monotonic()

    def end(self) -> None:
        """Stops the clock."""
        self._ended = time.monotonic()

    def count(self, source: int, frame: Frame, detection: Detection, capture_cpu_ms: float) -> None:
        """Counts a scored frame of one source and what it cost."""
        self.sources[source].count(frame, detection)
        self._last_score, self._last_threshold = detection.score, detection.threshold
        timings = detection.timings
        capture, resize, inference, decide = self.stages.values()
        capture.add(frame.capture_ms)
        resize.add(timings.resize)
        inference.add(timings.inference)
        decide.add(timings.decide)
        capture.add_cpu(capture_cpu_ms)
        resize.add_cpu(timings.resize_cpu)
        decide.add_cpu(timings.decide_cpu)
        # The wall clock may be set back while a stream runs.
        now, latency_ms = time.monotonic(), max(0.0, (time.time() - frame.captured_at) * 1e3)
        self._window.add(now, latency_ms)
        if self._windows[source] is not self._window:
            self._windows[source].add(now, latency_ms)

    def progress(self, pushed_out: Sequence[int], sink_dropped: dict[str, int], *, paused: bool) -> Progress:
        """The state now.

        Args:
            pushed_out: By source, items that newer ones pushed out of the detector's mailbox.
            sink_dropped: Results that a sink lost, by the sink's name.
            paused: Whether frames are let go by.
        """
        now = time.monotonic()
        sources = self._sources(pushed_out, now)
        latency = self._window.latency()
        return Progress(
            frames=sum(source.frames for source in sources),
            anomalous=sum(source.anomalous for source in sources),
            skipped=sum(source.skipped for source in sources),
            dropped=sum(source.dropped for source in sources),
            sink_dropped=sink_dropped,
            fps=self._window.rate(now),
            latency_p50=latency.p50,
            latency_p95=latency.p95,
            latency_p99=latency.p99,
            last_score=self._last_score,
            paused=paused,
            sources=tuple(one for one, tally in zip(sources, self.sources, strict=False) if not tally.removed),
            last_threshold=self._last_threshold,
        )

    def summary(
        self, pushed_out: Sequence[int], sink_dropped: dict[str, int], sinks: Sequence[StageStats], *, interrupted: bool
    ) -> RunSummary:
        """What was done so far; arguments as in `progress`, with the cost of each sink."""
        now = self._ended or time.monotonic()
        sources = self._sources(pushed_out, now)
        return RunSummary(
            frames=sum(source.frames for source in sources),
            anomalous=sum(source.anomalous for source in sources),
            skipped=sum(source.skipped for source in sources),
            dropped=sum(source.dropped for source in sources),
            sink_dropped=sink_dropped,
            wall_s=now - self._started,
            stages=tuple(stage.summary() for stage in (*self.stages.values(), *sinks)),
            interrupted=interrupted,
            sources=sources,
        )

    def _sources(self, pushed_out: Sequence[int], now: float) -> tuple[SourceProgress, ...]:
        # One that joins at this moment is left out until the next time.
        return tuple(source.progress(count, now) for source, count in zip(self.sources, pushed_out, strict=False))
