"""A camera by its index or device file."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2

from kanoclip.runtime.errors import SourceError, SourceRefusedError
from kanoclip.runtime.sources.base import BaseSource
from kanoclip.runtime.sources.capture import frame_rate, read_frame, ticks
from kanoclip.runtime.sources.network.clock import wall_time
from kanoclip.runtime.types import Frame

_OLDEST_S = 10.0
"""A driver's buffer that is older has its time from another clock."""


class CameraSource(BaseSource):
    """Frames from a local camera, newest first in spirit: OpenCV is asked to buffer one frame only.

    Args:
        index: OpenCV's camera index; on Linux N of /dev/videoN.
        name: What to call it; default `camera N`.

    Raises:
        SourceError: There is no such camera, or it is taken or not permitted.
    """

    live = True
    count: int | None = None
    root: Path | None = None

    def __init__(self, index: int, name: str | None = None) -> None:
        self.name = name or f"camera {index}"
        self._capture = cv2.VideoCapture(index)
        if not self._capture.isOpened():
            raise SourceError(f"{self.name} cannot be opened: {_advice(index)}")
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self.fps = frame_rate(self._capture)

    def frames(self) -> Iterator[Frame]:
        """Yields frames until the reader stops.

        Raises:
            SourceError: The camera stopped delivering (unplugged, or its driver failed).
        """
        index = 0
        while True:
            frame = read_frame(self._capture, index, self.name, live=True)
            if frame is None:
                raise SourceError(f"{self.name} stopped delivering after {index} frames: check its cable and power")
            yield self._stamped(frame)
            index += 1

    def _stamped(self, frame: Frame) -> Frame:
        """The frame with the driver's time of capture, where it is on the clock that Linux' drivers use."""
        captured, now = ticks(self._capture), time.monotonic()
        if captured is None or not 0 <= now - captured < _OLDEST_S:
            return frame
        return replace(frame, captured_at=wall_time(captured))

    def close(self) -> None:
        """Releases the camera."""
        self._capture.release()


def device_index(path: str) -> int:
    """The index of a camera's device file.

    Args:
        path: /dev/videoN, or a link to it such as those in /dev/v4l/by-id, which keep their names when cameras are
            plugged in another order.

    Raises:
        SourceError: There is no such file, or it is no camera's.
    """
    try:
        target = str(Path(path).resolve(strict=True))
    except (OSError, RuntimeError, ValueError):
        present = ", ".join(str(d) for d in sorted(Path("/dev").glob("video*"))[:8]) or "none"
        raise SourceError(
            f"{path}: no such device (present: {present}; ls /dev/v4l/by-id for names that last)"
        ) from None
    match = re.fullmatch(r"/dev/video([0-9]+)", target)
    if match is None:
        raise SourceRefusedError(
            f"{path}: not a camera; give /dev/videoN or a link to it, such as those in /dev/v4l/by-id"
        )
    return int(match[1])


def _advice(index: int) -> str:
    """What to try when camera `index` does not open."""
    if not sys.platform.startswith("linux"):
        return "try another --camera N, and check that no other program uses it"
    devices = sorted(Path("/dev").glob("video*"))
    if not devices:
        return "this machine has no /dev/video*: plug a camera in, or use --source with a file, folder or URL"
    if Path(f"/dev/video{index}") not in devices:
        return f"present are {', '.join(str(d) for d in devices[:8])}: try --camera with one of these numbers"
    return (
        f"/dev/video{index} is there: check that no other program uses it and that you may read it "
        "(group `video`), or try another --camera N"
    )
