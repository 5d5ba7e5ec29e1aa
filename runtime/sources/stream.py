"""A network stream: RTSP, HTTP(S), RTMP or UDP, through OpenCV's FFmpeg."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import cv2

from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.sources.capture import frame_count, frame_rate, read_frame
from kanoclip.runtime.types import Frame

OPEN_TIMEOUT_MS = 10_000
READ_TIMEOUT_MS = 10_000

_SCHEMES = frozenset({"rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp"})
SECRET = re.compile(r"pass|pwd|token|key|secret|auth|sig|user|login|credential", re.IGNORECASE)


def is_url(spec: str) -> bool:
    """Whether a source string is a URL of a scheme that FFmpeg streams from."""
    scheme, separator, _ = spec.partition("://")
    return bool(separator) and scheme.lower() in _SCHEMES


def redact_url(url: str) -> str:
    """Takes the credentials out of a URL, so that it can be printed and written to files.

    User name and password before the host go, and so do the values of query parameters that look like secrets.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition("://")[0] + "://..."
    host = parts.netloc.rpartition("@")[2]
    netloc = f"***@{host}" if "@" in parts.netloc else host
    query = parts.query
    if query:
        pairs = parse_qsl(query, keep_blank_values=True)
        shown = [(name, "***" if SECRET.search(name) else value) for name, value in pairs]
        query = urlencode(shown, safe="*") if any(SECRET.search(name) for name, _ in pairs) else query
    return urlunsplit((parts.scheme, netloc, parts.path, query, ""))


class UrlSource:
    """Frames from a network stream.

    A URL of known length (a video file on a web server) ends; anything else is live, and its end is a failure.

    Args:
        url: With credentials, if it needs any; they are used and never shown.

    Raises:
        SourceError: Nothing answers in `OPEN_TIMEOUT_MS`, or the answer is no video.
    """

    root: Path | None = None

    def __init__(self, url: str) -> None:
        self.name = redact_url(url)
        timeouts = [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
            OPEN_TIMEOUT_MS,
            cv2.CAP_PROP_READ_TIMEOUT_MSEC,
            READ_TIMEOUT_MS,
        ]
        self._capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, timeouts)
        if not self._capture.isOpened():
            raise SourceError(
                f"{self.name}: cannot be opened as a video stream; check address, credentials and that the camera "
                "answers (for example with ffplay)"
            )
        self.count = frame_count(self._capture)
        self.live = self.count is None
        self.fps = frame_rate(self._capture)

    def frames(self) -> Iterator[Frame]:
        """Yields frames until the stream ends.

        Raises:
            SourceError: No frame came, or a live stream stopped.
        """
        index = 0
        while True:
            frame = read_frame(self._capture, index, self.name, live=self.live)
            if frame is None:
                break
            yield frame
            index += 1
        if index == 0:
            raise SourceError(f"{self.name}: connected, but no frame could be decoded")
        if self.live:
            raise SourceError(
                f"{self.name}: the stream stopped after {index} frames (connection lost, or nothing for "
                f"{READ_TIMEOUT_MS // 1000} s)"
            )

    def close(self) -> None:
        """Closes the connection."""
        self._capture.release()
