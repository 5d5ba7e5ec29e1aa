"""What a run reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StageSummary:
    """Cost of one stage.

    Attributes:
        name: capture, resize, inference, decide, or a sink's name.
        count: Frames measured.
        mean: Milliseconds a frame over the whole run, exact.
        p50: Median in milliseconds. Of a live stream, over the last `counters.RESERVOIR` frames; else over the whole
            run: exact up to so many frames, then from a uniform sample of that size.
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


@dataclass(frozen=True, slots=True)
class SourceProgress:
    """One source's share of a run.

    Attributes:
        name: As `Source.name`; where two have the same, with a number.
        frames: Scored so far.
        anomalous: Of these, at or above the threshold.
        skipped: Images that could not be read.
        dropped: Frames that the detector was too slow for.
        fps: Scored fps over the last `counters.WINDOW` of them.
        last_score: Score of the last frame; None before the first.
        last_at: Unix time at which that one was captured.
        alarm: Whether its alarm is up; None before the first frame.
        error: Why it ended before its end; None while it runs, or where it came to its end.
        delivered: What came from it so far, readable or not, before any of it is dropped.
        last_frame_age_s: Seconds since the last of that; None before the first.
        away: Why nothing comes at present, while it is tried again; None otherwise.
        reconnects: How often it came back.
        score_counts: Scored frames by score: element i counts those above `SCORE_BOUNDS[i - 1]`, up to and including
            `SCORE_BOUNDS[i]`; the last one those above all of them. Scores that are no number are in no element.
        score_sum: Sum of these scores.
        alarms: How often its alarm was raised.
    """

    name: str
    frames: int
    anomalous: int
    skipped: int
    dropped: int
    fps: float
    last_score: float | None
    last_at: float | None
    alarm: bool | None
    error: str | None
    delivered: int = 0
    last_frame_age_s: float | None = None
    away: str | None = None
    reconnects: int = 0
    score_counts: tuple[int, ...] = ()
    score_sum: float = 0.0
    alarms: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a running stream.

    Attributes:
        frames: Scored so far.
        anomalous: Of these, at or above the threshold.
        skipped: Images that could not be read.
        dropped: Frames that the detector was too slow for.
        sink_dropped: Results that a sink lost, too slow for them or not working, by the sink's name.
        fps: fps over the last `counters.WINDOW` frames.
        latency_p50: Median milliseconds from capture to verdict over the same frames, waiting included.
        latency_p95: The 95th percentile.
        latency_p99: The 99th percentile.
        last_score: Score of the last frame; None before the first.
        paused: Whether frames are let go by unscored.
        sources: The same by source.
        last_threshold: What that score was compared with.
    """

    frames: int
    anomalous: int
    skipped: int
    dropped: int
    sink_dropped: dict[str, int]
    fps: float
    latency_p50: float
    latency_p95: float
    latency_p99: float
    last_score: float | None
    paused: bool = False
    sources: tuple[SourceProgress, ...] = ()
    last_threshold: float | None = None


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a stream did.

    Attributes:
        frames: Scored.
        anomalous: Of these, at or above the threshold.
        skipped: Images that could not be read.
        dropped: Frames that the detector was too slow for.
        sink_dropped: Results that a sink lost, too slow for them or not working, by the sink's name.
        wall_s: Seconds from start to end.
        stages: Cost by stage: capture, resize, inference, decide, then each sink.
        interrupted: Ended by a signal or the window's close key rather than by the source or the frame limit.
        sources: Counts by source.
    """

    frames: int
    anomalous: int
    skipped: int
    dropped: int
    sink_dropped: dict[str, int]
    wall_s: float
    stages: tuple[StageSummary, ...]
    interrupted: bool
    sources: tuple[SourceProgress, ...] = ()

    @property
    def fps(self) -> float:
        """Scored fps over the whole run."""
        return self.frames / self.wall_s if self.wall_s > 0 else 0.0

    @property
    def outside_inference_ms(self) -> float:
        """Mean milliseconds of work a frame in all stages other than inference, sinks included.

        The work of all threads is added up, as if one core did it.
        """
        return sum(stage.mean for stage in self.stages if stage.name != "inference")

    @property
    def outside_inference_cpu_ms(self) -> float:
        """Mean milliseconds of processor time a frame in all stages other than inference, sinks included.

        What the run costs beside inference on one core; waiting for the core, the camera or the disk is not in it.
        """
        return sum(stage.cpu for stage in self.stages if stage.cpu is not None)
