"""Where the stream meets the page: the newest frame of each source, its scores, and the last anomalies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kanoclip.runtime.service.page.feed.score_history import SPANS_S, Bucket, ScoreHistory
from kanoclip.runtime.service.page.gallery import JPEG_QUALITY, MAX_SIDE, MemoryGallery
from kanoclip.runtime.sinks.base import BaseSink
from kanoclip.runtime.sinks.draw.encode import encode_jpeg, encode_map
from kanoclip.runtime.sinks.jsonl import record
from kanoclip.runtime.types import BadFrame, Detection, Frame

MAX_FPS = 15.0
"""The most fps of each source that are encoded; whoever watches shares them."""


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """A frame, ready to be sent.

    Attributes:
        number: Of the source's scored frames, from 1.
        head: What is known about it, as JSON values.
        jpeg: The frame.
        map_png: Its map, 8 bits.
    """

    number: int
    head: dict[str, Any]
    jpeg: bytes
    map_png: bytes


@dataclass(frozen=True, slots=True)
class Count:
    """A source's figures.

    Attributes:
        frames: Scored.
        anomalous: Of these, at or above the threshold.
        age_s: Seconds since the last frame was scored; None before the first.
        alarm_age_s: Seconds since the alarm was up, or without one since the last anomalous frame; None before.
        score: The last frame's.
        alarm: Whether the alarm is up, or without one whether the last frame was anomalous.
    """

    frames: int
    anomalous: int
    age_s: float | None
    alarm_age_s: float | None
    score: float | None
    alarm: bool


class Hub(BaseSink):
    """The sink through which the page gets its frames; it holds the newest of each source and nothing else.

    `write` keeps a reference and returns. Anomalous frames are encoded for the gallery at a bounded rate.

    Args:
        gallery: Takes anomalous frames; None where another sink keeps them.
        clock: Monotonic seconds.
    """

    name = "page"
    shows = True

    def __init__(self, gallery: MemoryGallery | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.gallery = gallery
        self.ended = False
        self._clock = clock
        self._feeds: dict[str, Feed] = {}
        self._lock = threading.Lock()

    def feed(self, stream: str) -> Feed:
        """A source's, by `Frame.stream`."""
        with self._lock:
            if stream not in self._feeds:
                self._feeds[stream] = Feed(self._clock)
            return self._feeds[stream]

    def write(self, frame: Frame, detection: Detection) -> None:
        """Keeps a frame for whoever watches."""
        self.feed(frame.stream).put(frame, detection)
        if self.gallery is not None and detection.is_anomalous:
            self.gallery.offer(frame, detection)

    def skip(self, bad: BadFrame) -> None:
        """Shows nothing; the stream counts it."""

    def close(self) -> None:
        """The stream has ended; what it showed last stays."""
        self.ended = True


class Feed:
    """One source's newest frame and scores. Images are encoded for whoever asks, not before.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._latest: tuple[int, Frame, Detection] | None = None
        self._frames = self._anomalous = 0
        self._last: float | None = None
        self._last_alarm: float | None = None
        self._alarm = False
        self._histories = {span: ScoreHistory(span) for span in SPANS_S}
        self._encoding = threading.Lock()
        self._encoded: EncodedImage | None = None
        self._encoded_at = float("-inf")

    def put(self, frame: Frame, detection: Detection) -> None:
        """Keeps the newest frame in the place of the one before."""
        anomalous = bool(detection.is_anomalous)
        alarm = anomalous if detection.alarm is None else bool(detection.alarm)
        with self._lock:
            now = self._clock()
            self._frames += 1
            self._anomalous += anomalous
            self._latest = (self._frames, frame, detection)
            self._last = now
            self._alarm = alarm
            if alarm:
                self._last_alarm = now
            for history in self._histories.values():
                history.add(now, float(detection.score), anomalous)

    def fresh(self, shown: int) -> bool:
        """Whether `picture` would give a newer one than number `shown`."""
        encoded = self._encoded
        if encoded is not None and encoded.number > shown:
            return True
        return self._frames > shown and self._clock() - self._encoded_at >= 1 / MAX_FPS

    def count(self) -> Count:
        """The figures now."""
        with self._lock:
            now = self._clock()
            detection = self._latest[2] if self._latest else None
            return Count(
                frames=self._frames,
                anomalous=self._anomalous,
                age_s=None if self._last is None else now - self._last,
                alarm_age_s=None if self._last_alarm is None else now - self._last_alarm,
                score=None if detection is None else float(detection.score),
                alarm=self._alarm,
            )

    def scores(self, span: int, since: int) -> list[Bucket]:
        """Buckets of a span's history from number `since` on.

        Args:
            span: One of `SPANS_S`.
            since: As in `ScoreHistory.since`.
        """
        with self._lock:
            return self._histories[span].since(since, self._clock())

    def image(self) -> EncodedImage | None:
        """The newest frame, encoded; the one before where that is younger than 1 / `MAX_FPS`, None before the first.

        Whoever asks waits for whoever asked before, and takes the same image.

        Raises:
            SinkError: OpenCV cannot encode it.
        """
        with self._encoding:
            with self._lock:
                latest, now = self._latest, self._clock()
            if latest is None:
                return None
            number, frame, detection = latest
            if self._encoded is not None and (self._encoded.number == number or now - self._encoded_at < 1 / MAX_FPS):
                return self._encoded
            head = head_of(frame, detection)
            self._encoded = EncodedImage(
                number, head, encode_jpeg(frame.image, JPEG_QUALITY, MAX_SIDE), encode_map(detection.map)
            )
            self._encoded_at = now
            return self._encoded


def head_of(frame: Frame, detection: Detection) -> dict[str, Any]:
    """What goes along with an image: its record, and the sizes that its regions and its map are counted in."""
    height, width = frame.full_size or frame.image.shape[:2]
    rows, columns = detection.map.shape
    return record(frame, detection) | {
        "captured_at": frame.captured_at,
        "pixel_threshold": round(float(detection.pixel_threshold), 6),
        "size": [int(width), int(height)],
        "map_size": [int(columns), int(rows)],
        "roi": None if detection.roi is None else {"keep": detection.roi.keep, "ignore": detection.roi.ignore},
    }
