"""What a stream counts and measures while it runs."""

from __future__ import annotations

import time
from collections.abc import Sequence

from kanoclip.runtime.report import Progress, RunSummary
from kanoclip.runtime.statistics import SlidingWindow, StageStats
from kanoclip.runtime.types import Detection, Frame

STAGES = ("capture", "resize", "inference", "decide")


class Tally:
    """Counts of one run. Each is written by one thread at a time; a reader may see a value one frame old.

    Attributes:
        stages: Cost of the stages up to the verdict.
        bad_seen: Pictures that could not be read, counted when it was their turn.
        bad_evicted: Those that a newer frame pushed out of the mailbox; they are not frames that were dropped.
    """

    def __init__(self) -> None:
        self.stages = {name: StageStats(name) for name in STAGES}
        self.bad_seen = self.bad_evicted = 0
        self._judged = self._anomalous = 0
        self._last_score: float | None = None
        self._window = SlidingWindow()
        self._started = time.monotonic()
        self._ended: float | None = None

    def start(self) -> None:
        """Sets the clock to zero."""
        self._started = time.monotonic()

    def end(self) -> None:
        """Stops the clock."""
        self._ended = time.monotonic()

    def count(self, frame: Frame, detection: Detection) -> None:
        """Counts a judged frame and what it cost."""
        self._judged += 1
        self._anomalous += detection.is_anomalous
        self._last_score = detection.score
        timings = detection.timings
        for name, spent in zip(
            STAGES, (frame.capture_ms, timings.resize, timings.inference, timings.decide), strict=True
        ):
            self.stages[name].add(spent)
        self.stages["resize"].add_cpu(timings.resize_cpu)
        self.stages["decide"].add_cpu(timings.decide_cpu)
        # The wall clock may be set back while a stream runs.
        self._window.add(time.monotonic(), max(0.0, (time.time() - frame.captured_at) * 1e3))

    def progress(self, pushed_out: int, sink_dropped: dict[str, int]) -> Progress:
        """The state now.

        Args:
            pushed_out: Items that newer ones pushed out of the detector's mailbox.
            sink_dropped: Results that a sink was too slow for, by the sink's name.
        """
        fps, p50, p95, p99 = self._window.figures()
        return Progress(
            frames=self._judged,
            anomalous=self._anomalous,
            skipped=self.bad_seen + self.bad_evicted,
            dropped=pushed_out - self.bad_evicted,
            sink_dropped=sink_dropped,
            fps=fps,
            latency_p50=p50,
            latency_p95=p95,
            latency_p99=p99,
            last_score=self._last_score,
        )

    def summary(
        self, pushed_out: int, sink_dropped: dict[str, int], sinks: Sequence[StageStats], *, interrupted: bool
    ) -> RunSummary:
        """What was done so far; arguments as in `progress`, with the cost of each sink."""
        return RunSummary(
            frames=self._judged,
            anomalous=self._anomalous,
            skipped=self.bad_seen + self.bad_evicted,
            dropped=pushed_out - self.bad_evicted,
            sink_dropped=sink_dropped,
            wall_s=(self._ended or time.monotonic()) - self._started,
            stages=tuple(stage.summary() for stage in (*self.stages.values(), *sinks)),
            interrupted=interrupted,
        )
