"""A video file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import cv2

from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.sources.base import BaseSource
from kanoclip.runtime.sources.capture import check_size, frame_count, frame_rate, read_frame
from kanoclip.runtime.sources.files.reading import AS_IT_IS, Reading
from kanoclip.runtime.system.files.regular import open_regular
from kanoclip.runtime.types import BadFrame, Frame

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".mjpeg", ".wmv"})


class VideoSource(BaseSource):
    """Frames of a video file in order.

    Args:
        path: The file.
        reading: How large its frames may be.

    Raises:
        SourceError: It cannot be opened as a video, or its frames are too large.
    """

    live = False
    root: Path | None = None

    def __init__(self, path: Path, reading: Reading = AS_IT_IS) -> None:
        self.name = str(path)
        self.reading = reading
        try:
            with closing(open_regular(path)):  # OpenCV gives no reason; the operating system does.
                pass
        except OSError as error:
            raise SourceError(f"{path}: cannot be read ({error.strerror})") from error
        # Absolute: FFmpeg takes what stands before the colon in `10:15.mp4` for a protocol.
        self._capture = cv2.VideoCapture(str(path.absolute()))
        if not self._capture.isOpened():
            raise SourceError(
                f"{path}: not a video that OpenCV can decode (damaged, cut short or an unknown codec); "
                "try playing it, or convert it to H.264 .mp4"
            )
        check_size(self._capture, self.name, reading)
        self.count = frame_count(self._capture)
        self.fps = frame_rate(self._capture)

    def frames(self) -> Iterator[Frame | BadFrame]:
        """Yields the frames; when decoding ends far before the stated length, a `BadFrame` says so.

        Raises:
            SourceError: Not even the first frame could be decoded.
        """
        index = 0
        while True:
            frame = read_frame(self._capture, index, self.name, live=False, reading=self.reading)
            if frame is None:
                break
            yield frame
            index += 1
        if index == 0:
            raise SourceError(f"{self.name}: no frame of this video could be decoded; convert it to H.264 .mp4")
        # Containers without an index only estimate their length, hence the slack.
        if self.count is not None and index < 0.95 * self.count - 5:
            yield BadFrame(index, self.name, f"decoding stopped after {index} of about {self.count} frames")

    def close(self) -> None:
        """Releases the file."""
        self._capture.release()
