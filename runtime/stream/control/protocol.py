"""What may be asked of a running stream, and changed in it: by the page, by a signal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kanoclip.runtime.detect.learning.live import MemoryCount
from kanoclip.runtime.detect.learning.teaching.teacher import Teacher
from kanoclip.runtime.sources.base import Source
from kanoclip.runtime.stream.control.progress import Progress, RunSummary
from kanoclip.runtime.types import Image, RegionOfInterest


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
