"""An annotated .mp4."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import cv2
import numpy as np

from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.sinks.base import BaseSink
from kanoclip.runtime.sinks.draw.draw import annotate
from kanoclip.runtime.sinks.draw.heat_map import Canvas
from kanoclip.runtime.sinks.files import output_lock, sink_errors
from kanoclip.runtime.sinks.video.encoders import Encoder, h264_recipe, open_encoder
from kanoclip.runtime.sinks.video.segments import Segments, delete_oldest, keep_aside, stamped
from kanoclip.runtime.types import BadFrame, Detection, Frame, Image

log = logging.getLogger(__name__)

DEFAULT_FPS = 10.0
MAX_GAP_S = 5.0
"""Longest stretch for which a live video repeats an image to keep in step with the clock."""


class VideoSink(BaseSink):
    """All annotated frames as .mp4: H.264 where a program of the system encodes it (`encoders`), else MPEG-4.

    The first frame sets the size; frames of another size are fitted into it with black borders.

    A video of files is written beside and renamed when it is complete; what had its name before is overwritten. A live
    recording has its name from the start and can be watched while it grows. Its images repeat as needed, so that it
    plays at the speed of life although frames were dropped, and what had its name before gets another one
    (`segments`). It may be split into files that together take a bounded part of the disk.

    Args:
        path: The .mp4 file.
        fps: Frames per second; None for `DEFAULT_FPS`.
        live: A recording, and no video of files.
        untrained: The bundle has seeded weights: every frame says so.
        segments: How a recording is split; None for one file.

    Raises:
        SinkError: The folder cannot be made or the file cannot be created, or another process writes it.
    """

    name = "video"
    shows = True

    def __init__(
        self, path: Path, fps: float | None, *, live: bool, untrained: bool, segments: Segments | None = None
    ) -> None:
        self._path = path
        self._fps = fps or DEFAULT_FPS
        self._live = live
        self._untrained = untrained
        self._canvas = Canvas()
        self._segments = segments if live else None
        self._partial = path.with_name(f".{path.stem}.{os.getpid()}.partial.mp4")
        self._encoder: Encoder | None = None
        self._size = (0, 0)
        self._written = 0
        self._epoch = 0.0
        self._ends_at = float("inf")
        if path.is_dir():
            raise SinkError(f"{path}: is a folder; give the video another name")
        with sink_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = output_lock(path)
        try:
            with sink_errors(path):
                self._partial.touch()  # whoever may not write there shall learn it now
                if live:
                    self._partial.unlink()
        except BaseException:
            self._lock.release()
            raise
        if h264_recipe() is None:
            log.warning(
                "video: no program here encodes H.264, so it is MPEG-4, which browsers do not play and which is "
                "readable only once it is finished; apt-get install ffmpeg"
            )

    def write(self, frame: Frame, detection: Detection) -> None:
        """Draws and encodes one frame.

        Raises:
            SinkError: It cannot be encoded or written.
        """
        image = annotate(frame.image, detection, untrained=self._untrained, canvas=self._canvas)
        if self._encoder is not None and frame.captured_at >= self._ends_at:
            self._finish()
        if self._encoder is None:
            self._open(image, frame.captured_at)
        assert self._encoder is not None
        image = fit(image, *self._size)
        for _ in range(self._repeats(frame.captured_at)):
            self._encoder.write(image)
            self._written += 1

    def skip(self, bad: BadFrame) -> None:
        """Writes nothing for an image that could not be read."""

    def close(self) -> None:
        """Completes the file; without a single frame none is left.

        Raises:
            SinkError: It is not complete: the disk is full.
        """
        try:
            if self._encoder is not None:
                self._finish()
                if not self._live:
                    with sink_errors(self._path):
                        self._partial.replace(self._path)
        finally:
            self._partial.unlink(missing_ok=True)
            self._lock.release()

    def _finish(self) -> None:
        """Completes the file that is being written."""
        encoder, self._encoder = self._encoder, None
        if encoder is not None:
            encoder.close()

    def _open(self, image: Image, captured_at: float) -> None:
        """Starts a file at this frame's size, rounded up to even numbers as the codec wants."""
        self._size = (image.shape[0] + image.shape[0] % 2, image.shape[1] + image.shape[1] % 2)
        self._epoch = captured_at
        self._written = 0
        target = self._partial
        if self._live:
            with sink_errors(self._path):
                if self._segments is None:
                    keep_aside(self._path)
                    target = self._path
                else:
                    target = stamped(self._path, captured_at)
                    self._ends_at = captured_at + self._segments.seconds
                    if self._segments.max_bytes is not None:
                        delete_oldest(self._path, self._segments.max_bytes)
        self._encoder = open_encoder(target, self._size, self._fps)

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


def fit(image: Image, height: int, width: int) -> Image:
    """Scales an image down into a size if it is larger, centred on black.

    Returns:
        uint8 [height, width, 3]; the image itself when it has that size.
    """
    if image.shape[:2] == (height, width):
        return image
    scale = min(height / image.shape[0], width / image.shape[1], 1.0)
    if scale < 1.0:
        shape = (max(1, int(image.shape[1] * scale)), max(1, int(image.shape[0] * scale)))
        image = np.asarray(cv2.resize(image, shape, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas
