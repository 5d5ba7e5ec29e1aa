"""What cameras, video files and URLs share: a `cv2.VideoCapture` turned into frames."""

from __future__ import annotations

import math
import time

import cv2
import numpy as np

from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.sources.files.headers.header import Header
from kanoclip.runtime.sources.files.reading import Reading
from kanoclip.runtime.types import Frame, Image


def check_size(capture: cv2.VideoCapture, source: str, reading: Reading) -> None:
    """Refuses frames that are too large, by what the capture states, and releases it then.

    Raises:
        SourceError: They are.
    """
    width, height = (capture.get(one) for one in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if math.isfinite(width) and math.isfinite(height) and width > 0 and height > 0:
        refused = reading.too_large(Header(int(height), int(width)))
        if refused is not None:
            capture.release()
            raise SourceError(f"{source}: {refused}")


def read_frame(
    capture: cv2.VideoCapture, index: int, source: str, *, live: bool, reading: Reading | None = None
) -> Frame | None:
    """Takes the next frame.

    Args:
        capture: An open capture.
        index: Its position in the stream.
        source: Its name.
        live: Whether grabbing waits for the sensor. That wait costs nothing, so `capture_ms` then holds the decoding
            and conversion alone; for a file it holds everything.
        reading: How large frames may become, which a video may change at any frame; None for a camera's.

    Returns:
        The frame, uint8 BGR whatever the device gives; None at the end or on failure.

    Raises:
        SourceError: It is too large.
    """
    started = time.perf_counter()
    if not capture.grab():
        return None
    captured_at = time.time()
    if reading is not None:
        check_size(capture, source, reading)
    if live:
        started = time.perf_counter()
    ok, raw = capture.retrieve()
    if not ok or raw is None or raw.size == 0:
        return None
    image = to_bgr8(raw)
    return Frame(index, source, captured_at, image, (time.perf_counter() - started) * 1e3)


def ticks(capture: cv2.VideoCapture) -> float | None:
    """The last frame's time in seconds, on a clock of the stream's own (V4L2: `time.monotonic`'s); None if unknown."""
    position = float(capture.get(cv2.CAP_PROP_POS_MSEC))
    return position / 1e3 if math.isfinite(position) and position >= 0 else None


def to_bgr8(raw: np.ndarray) -> Image:
    """Converts what a capture may return (grey, alpha, 16 bits) to uint8 [H, W, 3] BGR."""
    if raw.dtype == np.uint16:
        raw = (raw >> 8).astype(np.uint8)
    if raw.ndim == 2 or raw.shape[2] == 1:
        raw = cv2.cvtColor(raw, cv2.COLOR_GRAY2BGR)
    elif raw.shape[2] == 4:
        raw = cv2.cvtColor(raw, cv2.COLOR_BGRA2BGR)
    return np.asarray(raw, dtype=np.uint8)


def frame_rate(capture: cv2.VideoCapture) -> float | None:
    """Frames per second as the capture states it; None when it states nothing believable."""
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return fps if math.isfinite(fps) and 0 < fps <= 1000 else None


def frame_count(capture: cv2.VideoCapture) -> int | None:
    """Number of frames as the container states it (often an estimate); None when it states nothing believable."""
    count = float(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    return int(count) if math.isfinite(count) and 1 <= count < 1e9 else None
