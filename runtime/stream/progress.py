"""What a run reports, and what may be asked of it while it goes on: by the page, by a signal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kanoclip.runtime.detect.learning.live import MemoryCount
from kanoclip.runtime.detect.learning.teacher import Teacher
from kanoclip.runtime.sources.base import Source
from kanoclip.runtime.stream.stats import StageSummary
from kanoclip.runtime.types import Image, RegionOfInterest

SCORE_BOUNDS = tuple(step / 20 for step in range(1, 21))
"""Upper bounds of the histogram of scores."""


@dataclass(frozen=True, slots=True)
class SourceProgress:
    """One source's share of a run.

    Attributes:
        name: As `Source.name`; where two have the same, with a number.
        frames: Scored so far.
        anomalous: Of these, at or above the threshold.
        skipped: Images that could not be read.
        dropped: Frames that the detector was too slow for.
        fps: Scored fps over the last `statistics.WINDOW` of them.
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
        fps: fps over the last `statistics.WINDOW` frames.
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


@dataclass(frozen=True, slots=True)
class StreamState:
    """What a stream scores, and by what.

    Attributes:
        bundle: The bundle's name.
        backend: The engine's name.
        sources: Names of the sources, without credentials.
        streams: What the frames of each have as `Frame.stream`, in the same order.
        classes: Those that the bundle knows.
        class_name: The one looked for.
        threshold: Score from which a frame is anomalous, in [0, 1].
        pixel_threshold: Map value from which a pixel belongs to a region, in [0, 1].
        paused: Whether frames are let go by unscored.
        trained: False for seeded weights, whose answers mean nothing.
        references: Good frames that the class's memory was made of; 0 without a memory.
        memory_rows: Descriptors that the memory holds of them.
        memory_saved: Whether a new start would score by the same memory.
        region: Digest of the class's region of interest; None for the whole image.
        promised: Whether calibrated thresholds keep their false-alarm rate in that region.
        fallback: Why the CPU scores although there is an engine for the GPU; None where all is as it should be.
    """

    bundle: str
    backend: str
    sources: tuple[str, ...]
    classes: tuple[str, ...]
    class_name: str
    threshold: float
    pixel_threshold: float
    paused: bool
    trained: bool
    references: int = 0
    memory_rows: int = 0
    memory_saved: bool = True
    region: str | None = None
    promised: bool = True
    streams: tuple[str, ...] = ("",)
    fallback: str | None = None


class Control(Protocol):
    """A running stream, to whoever watches over it. Every method may be called from any thread and returns at once."""

    @property
    def teacher(self) -> Teacher:
        """Takes a person's corrections, which cost inferences and files: not for a thread that others wait for."""
        ...

    def state(self) -> StreamState:
        """What is scored now, and by what."""
        ...

    def progress(self) -> Progress:
        """Counts, rate and latency."""
        ...

    def summary(self) -> RunSummary:
        """Counts and the cost of every stage."""
        ...

    def choose_class(self, name: str) -> None:
        """Looks for another class from the next frame on.

        Raises:
            FrameError: The bundle does not know it.
        """
        ...

    def choose_thresholds(self, *, image: float | None = None, pixel: float | None = None) -> None:
        """Scores the class looked for by other thresholds from the next frame on; None leaves one as it is.

        Raises:
            SettingsError: Outside of [0, 1].
        """
        ...

    def save_thresholds(self) -> str:
        """Saves the thresholds of the class looked for, so that later runs use them too.

        Returns:
            Where they are saved, for a person to read.

        Raises:
            KanoclipError: They cannot be saved.
        """
        ...

    def add_reference(
        self, image: Image | None = None, *, source: str | None = None, class_name: str | None = None
    ) -> MemoryCount:
        """Adds a good frame to the memory that a class is scored by, from the next frame on; the first one makes it.

        It returns after two inferences and some milliseconds. Nothing is written.

        Args:
            image: The frame, uint8 [H, W, 3], BGR; None for the last one that was scored.
            source: Whose last one; None for that of all sources.
            class_name: What it shows; None for the class looked for.

        Returns:
            The memory's size with it.

        Raises:
            KanoclipError: The graph takes no memory, the frame does not suit, or none has been scored yet.
        """
        ...

    def undo_reference(self, class_name: str | None = None) -> MemoryCount:
        """Takes the last change of a class's memory back, as long as it is not saved.

        Raises:
            SettingsError: There is none.
        """
        ...

    def reset_memory(self, class_name: str | None = None) -> MemoryCount:
        """Scores a class without a memory again; the bundle stays as it is, and `undo_reference` takes it back.

        Raises:
            KanoclipError: The class has none.
        """
        ...

    def save_memory(self, output: Path | None = None, class_name: str | None = None) -> str:
        """Writes a class's memory and its thresholds into the bundle; what it had before goes into its history.

        Args:
            output: Folder for a copy of the bundle, NAME.kanoclip; None for the bundle itself.
            class_name: Whose memory; None for the class looked for.

        Returns:
            The bundle that has it, for a person to read.

        Raises:
            KanoclipError: There is no memory, the bundle belongs to the package, or it cannot be written.
        """
        ...

    def add_source(self, source: Source) -> None:
        """Takes a further live source in while the stream runs; it is closed in the end.

        Raises:
            SourceError: It cannot join this run, and stays the caller's.
        """
        ...

    def remove_source(self, name: str) -> None:
        """Takes a source out of the run.

        Raises:
            SourceError: There is no such source, or no other one.
        """
        ...

    def region(self) -> RegionOfInterest | None:
        """Where images of the class looked for are scored; None for all of the image."""
        ...

    def choose_region(self, region: RegionOfInterest | None) -> None:
        """Scores the class looked for in another region from the next frame on; None for all of the image.

        Raises:
            KanoclipError: It leaves nothing of the image, or does not suit the present frames.
        """
        ...

    def save_region(self) -> str:
        """Saves the region of the class looked for, so that later runs use it too.

        Returns:
            The file that names it, for a person to read.

        Raises:
            KanoclipError: It cannot be saved.
        """
        ...

    def pause(self) -> None:
        """Lets a live view's frames go by unscored, and a file's wait; nothing reaches a sink."""
        ...

    def resume(self) -> None:
        """Scores again."""
        ...
