"""What flows through the runtime: frames in, detections out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.roi import RegionOfInterest

Image = npt.NDArray[np.uint8]
"""BGR picture as OpenCV gives it, uint8 [height, width, 3]."""

FloatMap = npt.NDArray[np.float32]
"""Anomaly map, float32 [height, width], values in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture from a source.

    Attributes:
        index: Position in the source's stream, counted from 0 and including pictures that could not be read.
        source: What it came from: a file's path, `camera 0`, a URL without credentials.
        captured_at: Unix time in seconds at which it was captured (for a file: read).
        image: uint8 [H, W, 3], BGR.
        capture_ms: Milliseconds spent in grabbing or reading and decoding it.
        capture_cpu_ms: Processor time spent on that by other threads than the one that the frame came from.
        full_size: (height, width) of the picture where `image` was decoded at a smaller scale; else None.
        stream: Name of the source in a run that has several; empty where there is one.
    """

    index: int
    source: str
    captured_at: float
    image: Image
    capture_ms: float
    capture_cpu_ms: float = 0.0
    full_size: tuple[int, int] | None = None
    stream: str = ""

    def shrunk(self, image: Image, full_size: tuple[int, int]) -> Frame:
        """The same with a smaller picture; for every frame, and in half the time that `dataclasses.replace` takes."""
        return Frame(
            self.index,
            self.source,
            self.captured_at,
            image,
            self.capture_ms,
            self.capture_cpu_ms,
            full_size,
            self.stream,
        )


@dataclass(frozen=True, slots=True)
class BadFrame:
    """A picture that a source could not read; the stream goes on after it.

    Attributes:
        index: Position in the source's stream, as in `Frame`.
        source: The file at fault.
        reason: Why, in a few words.
        stream: As in `Frame`.
    """

    index: int
    source: str
    reason: str
    stream: str = ""


@dataclass(frozen=True, slots=True)
class Region:
    """A connected area of the map at or above the pixel threshold, in pixels of the ORIGINAL frame.

    Of an anomalous image without any such area it is the one around the map's peak: see `decision.peak_region`.

    Attributes:
        x: Left edge.
        y: Top edge.
        width: Width of the bounding box, at least 1.
        height: Height of the bounding box, at least 1.
        score: Largest map value inside, in [0, 1].
        area: Number of original pixels covered (not the box's area).
    """

    x: int
    y: int
    width: int
    height: int
    score: float
    area: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds spent on one frame inside the detector, by stage.

    Attributes:
        resize: From the frame to the model's size.
        inference: In the engine.
        decide: From map to regions.
        resize_cpu: Processor time of the calling thread in `resize`: its cost where several threads share a core.
        decide_cpu: Processor time of the calling thread in `decide`.
    """

    resize: float
    inference: float
    decide: float
    resize_cpu: float
    decide_cpu: float


@dataclass(frozen=True, slots=True)
class Detection:
    """The detector's answer for one frame.

    Attributes:
        score: Image anomaly score in [0, 1] (eq. 12, halved), of what the region of interest leaves of the map.
        map: Anomaly map at model size, float32 [h, w] in [0, 1] (eq. 10); 0 outside of the region of interest. Owned by
            the caller.
        is_anomalous: `score >= threshold`, of this frame alone.
        threshold: The image threshold used.
        regions: Areas at or above the pixel threshold, largest score first; of an anomalous image at least one, its
            peak if nothing else, however small.
        class_name: The class whose text features were used.
        timings: Where the time went.
        roi: The region of interest; None for the whole picture.
        alarm: Whether the stream's alarm is up after this frame; None outside of a stream.
    """

    score: float
    map: FloatMap
    is_anomalous: bool
    threshold: float
    regions: tuple[Region, ...]
    class_name: str
    timings: Timings
    roi: RegionOfInterest | None = None
    alarm: bool | None = None

    def with_alarm(self, alarm: bool) -> Detection:
        """The same in a stream; for every frame, and in half the time that `dataclasses.replace` takes."""
        return Detection(
            self.score,
            self.map,
            self.is_anomalous,
            self.threshold,
            self.regions,
            self.class_name,
            self.timings,
            self.roi,
            alarm,
        )


Result = tuple[Frame, Detection] | BadFrame
"""What travels to the sinks."""
