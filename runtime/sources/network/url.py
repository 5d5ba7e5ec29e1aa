"""A network stream: RTSP, HTTP(S), RTMP or UDP, through OpenCV's FFmpeg."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import cv2

from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.sources.base import BaseSource
from kanoclip.runtime.sources.capture import check_size, frame_count, frame_rate, read_frame, ticks
from kanoclip.runtime.sources.files.reading import AS_IT_IS, Reading
from kanoclip.runtime.sources.network.clock import StreamClock, wall_time
from kanoclip.runtime.sources.network.probe import probe, refusal
from kanoclip.runtime.system.net import PublicUrl
from kanoclip.runtime.types import Frame

OPEN_TIMEOUT_S = 10.0
"""Finding out what a stream is takes FFmpeg up to 5 s where frames or key frames are rare."""
READ_TIMEOUT_S = 5.0

_MJPEG = cv2.VideoWriter.fourcc(*"MJPG")


class UrlSource(BaseSource):
    """Frames from a network stream.

    A URL of known length (a video file on a web server) ends; anything else is live, and its end is a failure. Frames
    that FFmpeg had buffered, so that nobody knows when they were captured, are let go; each of the others has the
    time of its capture, as far as the stream's own clock tells it.

    Args:
        url: With credentials, if it needs any; they are used and never shown.
        read_timeout_s: For each frame; None waits for ever.
        reading: How large its frames may be.

    Raises:
        SourceRefusedError: The server wants other credentials.
        SourceError: Nobody answers, the answer is no video, or its frames are too large.
    """

    root: Path | None = None

    def __init__(self, url: str, read_timeout_s: float | None = READ_TIMEOUT_S, reading: Reading = AS_IT_IS) -> None:
        self.reading = reading
        address = PublicUrl.of(url)
        self.name = address.shown
        self._read_timeout_s = read_timeout_s
        probe(address)
        options = [
            *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(OPEN_TIMEOUT_S * 1e3)),
            *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, int((read_timeout_s or 0) * 1e3)),
            # Each further thread holds a frame back: 8 cores would age the image by 0.3 s at 25 fps.
            *(cv2.CAP_PROP_N_THREADS, 1),
        ]
        self._capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, options)
        if not self._capture.isOpened():
            raise refusal(address)
        check_size(self._capture, self.name, reading)
        self.count = frame_count(self._capture)
        self.live = self.count is None
        self.fps = frame_rate(self._capture)
        # Images by HTTP, and bare TCP, carry no time: FFmpeg counts them then.
        scheme, codec = urlsplit(url).scheme.lower(), int(self._capture.get(cv2.CAP_PROP_FOURCC))
        self._clocked = scheme != "tcp" and not (scheme.startswith("http") and codec == _MJPEG)

    def frames(self) -> Iterator[Frame]:
        """Yields frames until the stream ends.

        Raises:
            SourceError: No frame came, or a live stream stopped.
        """
        index = grabbed = 0
        clock = StreamClock()
        while True:
            frame = read_frame(self._capture, index, self.name, live=self.live, reading=self.reading)
            if frame is None:
                break
            grabbed += 1
            if self.live:
                arrived = time.monotonic() - frame.capture_ms / 1e3  # before it was converted
                captured = clock.captured(arrived, ticks(self._capture) if self._clocked else None)
                if captured is None:
                    continue
                frame = replace(frame, captured_at=wall_time(captured))
            yield frame
            index += 1
        if grabbed == 0:
            raise SourceError(f"{self.name}: connected, but no frame could be decoded")
        if self.live:
            waited = f", or nothing for {self._read_timeout_s:g} s" if self._read_timeout_s else ""
            raise SourceError(f"{self.name}: the stream stopped after {index} frames (connection lost{waited})")

    def close(self) -> None:
        """Closes the connection."""
        self._capture.release()
