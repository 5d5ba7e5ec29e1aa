"""What may be asked of a running stream, and changed: by the page, by a signal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from kanoclip.runtime.stream.progress import Progress, RunSummary


@dataclass(frozen=True, slots=True)
class StreamState:
    """What a stream judges, and by what.

    Attributes:
        bundle: The bundle's name.
        backend: The engine's name.
        sources: Names of the sources, without credentials.
        classes: Those that the bundle knows.
        class_name: The one looked for.
        threshold: Score from which a frame is anomalous, in [0, 1].
        pixel_threshold: Map value from which a pixel belongs to a region, in [0, 1].
        paused: Whether frames are let go by unjudged.
        trained: False for seeded weights, whose answers mean nothing.
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


class Control(Protocol):
    """A running stream, to whoever watches over it. Every method may be called from any thread and returns at once."""

    def state(self) -> StreamState:
        """What is judged now, and by what."""
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
        """Judges the class looked for by other thresholds from the next frame on; None leaves one as it is.

        Raises:
            SettingsError: Outside of [0, 1].
        """
        ...

    def save_thresholds(self) -> str:
        """Keeps the thresholds of the class looked for, for later runs too.

        Returns:
            Where they are now, for a person.

        Raises:
            KanoclipError: They cannot be kept there.
        """
        ...

    def pause(self) -> None:
        """Lets a live view's frames go by unjudged, and a file's wait; nothing reaches a sink."""
        ...

    def resume(self) -> None:
        """Judges again."""
        ...
