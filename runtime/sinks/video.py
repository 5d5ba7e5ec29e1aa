"""An annotated .mp4."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.sinks.draw import annotate
from kanoclip.runtime.sinks.files import sink_errors
from kanoclip.runtime.types import BadFrame, Detection, Frame, Image

FOURCC = "mp4v"
"""MPEG-4 part 2: what OpenCV's own wheels can always encode (their FFmpeg has no H.264 encoder)."""
DEFAULT_FPS = 10.0
MAX_GAP_S = 5.0
"""Longest stretch for which a live video repeats a picture to keep in step with the clock."""


class VideoSink:
    """One .mp4 with all annotated frames, written beside and renamed when it is complete.

    The first frame sets the size; frames of another size are fitted into it with black borders. From a live source
    pictures repeat as needed, so that the video plays at the speed of life although frames were dropped.

    Args:
        path: The .mp4 file; overwritten when present.
        fps: Frames per second; None for `DEFAULT_FPS`.
        live: Keep to the capture times.
        untrained: The bundle has seeded weights: every frame says so.

    Raises:
        SinkError: The folder cannot be made or the file cannot be created.
    """

    name = "video"
    shows = True

    def __init__(self, path: Path, fps: float | None, *, live: bool, untrained: bool) -> None:
        self._path = path
        self._fps = fps or DEFAULT_FPS
        self._live = live
        self._untrained = untrained
        self._partial = path.with_name(f".{path.stem}.{os.getpid()}.partial.mp4")
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._written = 0
        self._epoch = 0.0
        if path.is_dir():
            raise SinkError(f"{path}: is a folder; give the video another name")
        with sink_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # OpenCV gives no reason when it cannot write: the operating system does.
            self._partial.touch()

    def write(self, frame: Frame, detection: Detection) -> None:
        """Draws and encodes one frame.

        Raises:
            SinkError: OpenCV has no encoder for it.
        """
        picture = annotate(frame.image, detection, untrained=self._untrained)
        if self._writer is None:
            self._open(picture, frame.captured_at)
        assert self._writer is not None
        picture = fit(picture, *self._size)
        for _ in range(self._repeats(frame.captured_at)):
            self._writer.write(picture)
            self._written += 1

    def skip(self, bad: BadFrame) -> None:
        """Writes nothing for a picture that could not be read."""

    def close(self) -> None:
        """Completes the file and gives it its name; without a single frame no file is left.

        Raises:
            SinkError: The file is not readable as a video: the disk is full.
        """
        try:
            if self._writer is None:
                return
            self._writer.release()
            self._writer = None
            # OpenCV reports no write error. A file that lost its tail has no index and does not open.
            check = cv2.VideoCapture(str(self._partial))
            complete = check.isOpened()
            check.release()
            if not complete:
                raise SinkError(f"{self._path}: the video could not be completed; is the disk full?")
            with sink_errors(self._path):
                self._partial.replace(self._path)
        finally:
            self._partial.unlink(missing_ok=True)

    def _open(self, picture: Image, captured_at: float) -> None:
        """Starts the encoder at the first frame's size, rounded up to even numbers as the codec wants."""
        self._size = (picture.shape[0] + picture.shape[0] % 2, picture.shape[1] + picture.shape[1] % 2)
        self._epoch = captured_at
        writer = cv2.VideoWriter(
            str(self._partial), cv2.VideoWriter.fourcc(*FOURCC), self._fps, (self._size[1], self._size[0])
        )
        if not writer.isOpened():
            raise SinkError(
                f"{self._path}: this OpenCV cannot encode {FOURCC} video at {self._size[1]}x{self._size[0]}; "
                "give --output a folder to get pictures"
            )
        self._writer = writer

    def _repeats(self, captured_at: float) -> int:
        """How often to write the frame so that the video keeps up with the clock."""
        if not self._live:
            return 1
        due = int((captured_at - self._epoch) * self._fps) + 1 - self._written
        limit = int(MAX_GAP_S * self._fps) + 1
        if not 1 <= due <= limit:  # a long gap, the clock was set, or frames come faster than fps: start anew from here
            due = 1
            self._epoch = captured_at - self._written / self._fps
        return due


def fit(picture: Image, height: int, width: int) -> Image:
    """Scales a picture down into a size if it is larger, centred on black.

    Returns:
        uint8 [height, width, 3]; the picture itself when it has that size.
    """
    if picture.shape[:2] == (height, width):
        return picture
    scale = min(height / picture.shape[0], width / picture.shape[1], 1.0)
    if scale < 1.0:
        shape = (max(1, int(picture.shape[1] * scale)), max(1, int(picture.shape[0] * scale)))
        picture = np.asarray(cv2.resize(picture, shape, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - picture.shape[0]) // 2, (width - picture.shape[1]) // 2
    canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return canvas
