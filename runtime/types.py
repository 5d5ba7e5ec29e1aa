"""What flows through the runtime: frames in, detections out; and the region of interest that frames are scored in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from kanoclip.runtime.errors import FrameError, SettingsError

Image = npt.NDArray[np.uint8]
"""BGR image as OpenCV gives it, uint8 [height, width, 3]."""

Images = npt.NDArray[np.uint8]
"""Several of one size, uint8 [number, height, width, 3]."""

FloatMap = npt.NDArray[np.float32]
"""Anomaly map, float32 [height, width], values in [0, 1]."""

Polygon = tuple[tuple[float, float], ...]
"""Corners (x, y) in shares of the image's width and height, in [0, 1]; at least 3."""

Mask = npt.NDArray[np.bool_]
"""True where a map counts, bool [height, width]."""

ASPECT_TOLERANCE = 0.02
"""By how much of itself a frame's aspect may differ from that of the image that pixels were counted on."""
_SHIFT = 8
"""Bits after the point in OpenCV's coordinates."""


@dataclass(frozen=True)
class RegionOfInterest:
    """Where images are scored.

    A pixel counts when a polygon to keep covers it, or there is none, and none to ignore does. OpenCV
    draws the edges too, so that a polygon, to keep or to ignore, may be up to a pixel of the map larger, and a quarter
    of one smaller.

    Attributes:
        name: The file's name, for messages and the manifest.
        keep: Polygons inside of which the map counts; empty for the whole image.
        ignore: Polygons inside of which it does not.
        drawn_on: (width, height) of the image that pixels were counted on; None for relative coordinates, which fit
            any image.
    """

    name: str
    keep: tuple[Polygon, ...] = ()
    ignore: tuple[Polygon, ...] = ()
    drawn_on: tuple[int, int] | None = None

    @property
    def whole(self) -> bool:
        """Whether it is the whole image, without any polygon: what overrides a region that is set for all classes."""
        return not self.keep and not self.ignore

    def mask(self, height: int, width: int) -> Mask:
        """The pixels that count, at any size; an image is stretched to the model's, and so are the polygons.

        Raises:
            SettingsError: None is left.
        """
        mask = _covered(self.keep, height, width) if self.keep else np.ones((height, width), bool)
        mask &= ~_covered(self.ignore, height, width)
        if not mask.any():
            raise SettingsError(f"{self.name}: the polygons leave nothing of the image")
        return mask

    def check_frame(self, height: int, width: int) -> None:
        """Refuses frames of another shape than the polygons were drawn on.

        Raises:
            FrameError: The aspect differs; another resolution of the same aspect is fine.
        """
        if self.drawn_on is None:
            return
        drawn_width, drawn_height = self.drawn_on
        if abs(width * drawn_height - height * drawn_width) > ASPECT_TOLERANCE * height * drawn_width:
            raise FrameError(
                f"{self.name} was drawn on an image of {drawn_width}x{drawn_height}, and this frame has "
                f"{width}x{height}: draw it on such a frame, or give relative coordinates"
            )

    def outlines(self, height: int, width: int) -> tuple[list[npt.NDArray[np.int32]], list[npt.NDArray[np.int32]]]:
        """Corners of the polygons to keep and of those to ignore, each int32 [corners, 2], in pixels of an image."""
        inside, ignored = (
            [_scaled(polygon, height, width, 1.0).round().astype(np.int32) for polygon in polygons]
            for polygons in (self.keep, self.ignore)
        )
        return inside, ignored

    def digest(self) -> str:
        """A sha256 by which to tell regions apart; the file's name and its format do not matter."""
        rounded = [
            [[(round(x, 6), round(y, 6)) for x, y in polygon] for polygon in polygons]
            for polygons in (self.keep, self.ignore)
        ]
        return hashlib.sha256(repr(rounded).encode()).hexdigest()


def _covered(polygons: tuple[Polygon, ...], height: int, width: int) -> Mask:
    """Pixels that any of the polygons covers."""
    canvas = np.zeros((height, width), np.uint8)
    for polygon in polygons:  # one by one: together, what two cover would be outside
        corners = _scaled(polygon, height, width, float(1 << _SHIFT)).round().astype(np.int32)
        cv2.fillPoly(canvas, [corners], 1, cv2.LINE_8, _SHIFT)
    return canvas.astype(bool)


def _scaled(polygon: Polygon, height: int, width: int, factor: float) -> npt.NDArray[np.float64]:
    """Corners in pixels times a factor; the centre of the first pixel is (0, 0), as OpenCV has it."""
    return (np.asarray(polygon, np.float64) * (width, height) - 0.5) * factor


@dataclass(frozen=True, slots=True)
class Frame:
    """One image from a source.

    Attributes:
        index: Position in the source's stream, counted from 0 and including images that could not be read.
        source: What it came from: a file's path, `camera 0`, a URL without credentials.
        captured_at: Unix time in seconds at which it was captured (for a file: read).
        image: uint8 [H, W, 3], BGR.
        capture_ms: Milliseconds spent in grabbing or reading and decoding it.
        capture_cpu_ms: Processor time spent on that by other threads than the one that the frame came from.
        full_size: (height, width) of the image where `image` was decoded at a smaller scale; else None.
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
        """The same with a smaller image; for every frame, and in half the time that `dataclasses.replace` takes."""
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
    """An image that a source could not read; the stream goes on after it.

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

    Of an anomalous image without any such area it is the one around the map's peak: see `regions.peak_region`.

    Examples:
        >>> import numpy as np
        >>> image = np.zeros((480, 640, 3), np.uint8)
        >>> region = Region(x=10, y=20, width=30, height=40, score=0.9, area=600)
        >>> image[region.y : region.y + region.height, region.x : region.x + region.width].shape
        (40, 30, 3)

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
        resize: From the frame to the model's size, or to its tiles.
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

    Examples:
        >>> map = np.zeros((256, 256), np.float32)
        >>> found = Detection(0.7, map, True, 0.5, (), "object", Timings(1.0, 20.0, 1.0, 1.0, 1.0))
        >>> found.with_alarm(False).alarm  # an anomalous frame, in a stream whose alarm waits for more of them
        False

    Attributes:
        score: Image anomaly score in [0, 1] (eq. 12, halved), of what the region of interest leaves of the map; with
            tiles, the largest of theirs.
        map: Anomaly map at the model's size, or with tiles at that of their maps put together, float32 [h, w] in [0, 1]
            (eq. 10); 0 outside of the region of interest. Owned by the caller.
        is_anomalous: `score >= threshold`, of this frame alone.
        threshold: The image threshold used.
        regions: Areas at or above the pixel threshold, largest score first; of an anomalous image at least one, its
            peak if nothing else, however small.
        class_name: The class whose text features were used.
        timings: Where the time went.
        roi: The region of interest; None for the whole image.
        alarm: Whether the stream's alarm is up after this frame; None outside of a stream.
        pixel_threshold: The pixel threshold used: map value from which a region begins.
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
    pixel_threshold: float = 0.5

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
            self.pixel_threshold,
        )


Result = tuple[Frame, Detection] | BadFrame
"""What travels to the sinks."""
