"""The last anomalies, to be looked at again."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.sinks.draw.encode import encode_jpeg, encode_map
from kanoclip.runtime.sinks.jsonl import record
from kanoclip.runtime.types import Detection, Frame

MAX_SIDE = 1280
"""Longer side of the images that are sent."""
THUMBNAIL_SIDE = 320
JPEG_QUALITY = 80
MAX_ENTRIES = 60
MAX_BYTES = 32 << 20
BURST = 24
"""Anomalies in a row that are all held."""
HELD_PER_S = 0.5
"""After a burst: many bad parts one after the other must not cost processor time without end."""
APART_S = 1.0
"""From one frame of a camera to the next: a defect that stays in view must not push everything else out."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An anomaly in the gallery.

    Attributes:
        key: What to ask for it by.
        captured_at: Unix time in seconds.
        stream: The source's name in a run of several.
        class_name: What was looked for.
        score: In [0, 1].
        threshold: What it was at or above of.
    """

    key: str
    captured_at: float
    stream: str
    class_name: str
    score: float
    threshold: float


class Gallery(Protocol):
    """The anomalies shown. Every method may be called from any thread; None for what is no longer there."""

    @property
    def revision(self) -> int:
        """Changes whenever the list does."""
        ...

    @property
    def place(self) -> str | None:
        """Where they are saved, for a person; None for in memory."""
        ...

    def entries(self, most: int = MAX_ENTRIES) -> Sequence[Entry]:
        """What there is, newest first, so many at most."""
        ...

    def image(self, key: str) -> bytes | None:
        """The frame as JPEG."""
        ...

    def thumbnail(self, key: str) -> bytes | None:
        """The frame as a small JPEG."""
        ...

    def map_png(self, key: str) -> bytes | None:
        """Its map as 8-bit grey PNG."""
        ...

    def record(self, key: str) -> dict[str, Any] | None:
        """What the JSON lines say about it, with `size` [w, h] of the frame and the `pixel_threshold`."""
        ...


@dataclass(frozen=True, slots=True)
class _Held:
    entry: Entry
    jpeg: bytes
    thumbnail: bytes
    map_png: bytes
    record: dict[str, Any]

    @property
    def size(self) -> int:
        return len(self.jpeg) + len(self.thumbnail) + len(self.map_png)


class MemoryGallery:
    """The last anomalies in memory, at most `MAX_ENTRIES` and `MAX_BYTES`; all are gone with the process.

    Args:
        clock: Monotonic seconds.
    """

    place = None

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._bytes = 0
        self._next = 0
        self._held_at: OrderedDict[str, float] = OrderedDict()
        self._room, self._refilled = float(BURST), clock()

    def offer(self, frame: Frame, detection: Detection) -> None:
        """Keeps an anomalous frame, unless there were many just before. A frame that cannot be encoded is let go."""
        with self._lock:
            now = self._clock()
            if now - self._held_at.get(frame.source, float("-inf")) < APART_S:
                return
            self._room = min(float(BURST), self._room + (now - self._refilled) * HELD_PER_S)
            self._refilled = now
            if self._room < 1:
                return
            self._room -= 1
            self._held_at[frame.source] = now
            self._held_at.move_to_end(frame.source)
            while len(self._held_at) > MAX_ENTRIES:  # each file of a folder is a source
                self._held_at.popitem(last=False)
        try:
            images = (
                encode_jpeg(frame.image, JPEG_QUALITY, MAX_SIDE),
                encode_jpeg(frame.image, JPEG_QUALITY, THUMBNAIL_SIDE),
            )
            map_png = encode_map(detection.map)
        except SinkError:
            return
        height, width = frame.full_size or frame.image.shape[:2]
        about = record(frame, detection) | {
            "size": [int(width), int(height)],
            "pixel_threshold": round(float(detection.pixel_threshold), 6),
        }
        with self._lock:
            self._next += 1
            entry = Entry(
                str(self._next),
                frame.captured_at,
                frame.stream,
                detection.class_name,
                float(detection.score),
                float(detection.threshold),
            )
            held = _Held(entry, *images, map_png, about)
            self._held[entry.key] = held
            self._bytes += held.size
            while len(self._held) > MAX_ENTRIES or (self._bytes > MAX_BYTES and len(self._held) > 1):
                self._bytes -= self._held.popitem(last=False)[1].size

    @property
    def revision(self) -> int:
        """Of the list."""
        return self._next

    def entries(self, most: int = MAX_ENTRIES) -> Sequence[Entry]:
        """What there is, newest first."""
        with self._lock:
            return [held.entry for held in reversed(self._held.values())][:most]

    def image(self, key: str) -> bytes | None:
        """The frame as JPEG."""
        held = self._held.get(key)
        return None if held is None else held.jpeg

    def thumbnail(self, key: str) -> bytes | None:
        """The frame as a small JPEG."""
        held = self._held.get(key)
        return None if held is None else held.thumbnail

    def map_png(self, key: str) -> bytes | None:
        """Its map as 8-bit grey PNG."""
        held = self._held.get(key)
        return None if held is None else held.map_png

    def record(self, key: str) -> dict[str, Any] | None:
        """What is known about it."""
        held = self._held.get(key)
        return None if held is None else held.record
