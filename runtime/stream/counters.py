"""What a run counts and measures of each frame, in bounded memory: a stream may run for months.

Each count is written by one thread at a time. Who reads them (`control/figures.py`) may be one frame behind.
"""

from __future__ import annotations

import math
import random
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence

from kanoclip.runtime.detect.alarm import EVERY_FRAME, Alarm
from kanoclip.runtime.sources.base import Source
from kanoclip.runtime.types import Detection, Frame

SCORE_BOUNDS = tuple(step / 20 for step in range(1, 21))
"""Upper bounds of the histogram of scores."""
RESERVOIR = 1024
"""Frames that a stage's percentiles are taken from."""
WINDOW = 256
"""Frames that rate and latency of a stream are taken from."""


class StageStats:
    """Cost of one stage.

    Args:
        name: The stage's.
        recent: Keep the last frames for percentiles, which then describe the present of a run without an end; else a
            uniform sample of all.

    Attributes:
        sample: Milliseconds of up to `RESERVOIR` frames.
    """

    def __init__(self, name: str, *, recent: bool = False) -> None:
        self.name = name
        self.count = self.cpu_count = 0
        self.total = self.cpu_total = 0.0  # milliseconds
        self.sample: deque[float] = deque(maxlen=RESERVOIR)
        self._recent = recent
        self._lock = threading.Lock()  # of the sinks of one name
        self._random = random.Random(0)  # a fixed seed: two runs over the same timings report the same figures

    def add(self, milliseconds: float, cpu_milliseconds: float | None = None) -> None:
        """Counts one frame, and its processor time where that is measured."""
        with self._lock:
            self.count += 1
            self.total += milliseconds
            if cpu_milliseconds is not None:
                self.cpu_count += 1
                self.cpu_total += cpu_milliseconds
            if self._recent or len(self.sample) < RESERVOIR:
                self.sample.append(milliseconds)
            else:
                slot = self._random.randrange(self.count)
                if slot < RESERVOIR:
                    self.sample[slot] = milliseconds


class SourceTally:
    """Counts of one source.

    Attributes:
        alarm: What its verdicts add up to.
        delivered: What came from it, readable or not, before any of it is dropped.
        frames: Scored.
        bad_seen: Images that could not be read, counted when it was their turn.
        bad_evicted: Those that a newer frame pushed out of the mailbox; they are not frames that were dropped.
        size: (height, width) of the last scored frame in full; None before the first.
        times: Of the last frames: monotonic time in seconds at which it was scored, and milliseconds since its capture.
        error: Why the source ended before its end.
        ended: It delivers nothing more.
        removed: It was taken out of the run; its counts stay in the totals.
    """

    def __init__(self, source: Source) -> None:
        self.source, self.alarm = source, Alarm(EVERY_FRAME)
        self.delivered = self.frames = self.anomalous = self.bad_seen = self.bad_evicted = self.alarms = 0
        self.delivered_at: float | None = None  # monotonic
        self.size: tuple[int, int] | None = None
        self.last_score: float | None = None
        self.last_at: float | None = None  # Unix time
        self.last_alarm: bool | None = None
        self.score_counts, self.score_sum = [0] * (len(SCORE_BOUNDS) + 1), 0.0
        self.times: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        self.error: str | None = None
        self.ended = self.removed = False

    def deliver(self) -> None:
        """Counts what came from the source."""
        self.delivered += 1
        self.delivered_at = time.monotonic()

    def count(self, frame: Frame, detection: Detection, times: tuple[float, float]) -> None:
        """Counts a scored frame."""
        self.frames += 1
        self.anomalous += detection.is_anomalous
        self.size = frame.full_size or frame.image.shape[:2]
        self.alarms += bool(detection.alarm) and not self.last_alarm
        self.last_score, self.last_at, self.last_alarm = detection.score, frame.captured_at, detection.alarm
        self.times.append(times)
        if math.isfinite(detection.score):
            self.score_counts[bisect_left(SCORE_BOUNDS, detection.score)] += 1
            self.score_sum += float(detection.score)


class Tally:
    """Counts of one run.

    Args:
        sources: The run's sources; their names and their health are reported.
        recent: As `StageStats` takes it.

    Attributes:
        sources: Counts by source; one that joins is added at the end.
        stages: Cost of the stages up to the verdict.
        times: As `SourceTally.times`, of all sources.
    """

    def __init__(self, sources: Sequence[Source], *, recent: bool) -> None:
        self.sources = [SourceTally(source) for source in sources]
        self.stages = {name: StageStats(name, recent=recent) for name in ("capture", "resize", "inference", "decide")}
        self.times: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        self.last_score: float | None = None
        self.last_threshold: float | None = None
        self.started = time.monotonic()
        self.ended: float | None = None

    def count(self, source: int, frame: Frame, detection: Detection, capture_cpu_ms: float) -> None:
        """Counts a scored frame of one source and what it cost."""
        # The wall clock may be set back while a stream runs.
        times = time.monotonic(), max(0.0, (time.time() - frame.captured_at) * 1e3)
        self.times.append(times)
        self.sources[source].count(frame, detection, times)
        self.last_score, self.last_threshold = detection.score, detection.threshold
        timings = detection.timings
        capture, resize, inference, decide = self.stages.values()
        capture.add(frame.capture_ms, capture_cpu_ms)
        resize.add(timings.resize, timings.resize_cpu)
        inference.add(timings.inference)
        decide.add(timings.decide, timings.decide_cpu)
