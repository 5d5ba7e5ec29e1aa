"""The gallery out of the snapshots' folder: it outlives the process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.service.page.gallery import JPEG_QUALITY, MAX_ENTRIES, THUMBNAIL_SIDE, Entry
from kanoclip.runtime.sinks.draw.encode import encode_jpeg
from kanoclip.runtime.sinks.snapshots.reader import Snapshot, newest_snapshots, read_snapshot
from kanoclip.runtime.system.files.regular import read_small

MAX_KNOWN = 20_000
"""Snapshots whose row of the list is remembered: some 10 MB, and a search does not read them again."""


class SnapshotGallery:
    """The newest snapshots. What it has read of one is remembered: rows of many, small images of the newest.

    Args:
        folder: Where another sink keeps them; it may delete any at any time.
        pixel_threshold: Tells what regions are found by now, for snapshots that do not say so.
    """

    def __init__(self, folder: Path, pixel_threshold: Callable[[], float]) -> None:
        self.place: str | None = str(folder)
        self._folder = folder
        self._pixel_threshold = pixel_threshold
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, Entry | None] = OrderedDict()
        self._thumbnails: OrderedDict[str, bytes] = OrderedDict()

    @property
    def revision(self) -> int:
        """When something was added to the folder or deleted from it."""
        with suppress(OSError):
            return self._folder.stat().st_mtime_ns // 1000  # a browser's numbers are exact up to 2^53
        return 0

    def entries(self, most: int = MAX_ENTRIES) -> Sequence[Entry]:
        """What there is, newest first.

        Raises:
            SinkError: The folder cannot be read.
        """
        found = []
        for name in newest_snapshots(self._folder, most):
            with self._lock:
                known = name in self._entries
                entry = self._entries.get(name)
            if not known:
                snapshot = read_snapshot(self._folder, name)
                entry = None if snapshot is None else _entry(snapshot)
                with self._lock:
                    _remember(self._entries, name, entry, MAX_KNOWN)
            if entry is not None:
                found.append(entry)
        return found

    def image(self, key: str) -> bytes | None:
        """The frame as JPEG."""
        snapshot = read_snapshot(self._folder, key)
        return None if snapshot is None else _bytes(snapshot.image)

    def original(self, key: str) -> bytes | None:
        """The frame in full size as JPEG, which is the snapshot's own."""
        return self.image(key)

    def thumbnail(self, key: str) -> bytes | None:
        """The frame as a small JPEG."""
        with self._lock:
            small = self._thumbnails.get(key)
        if small is None:
            data = self.image(key)
            image = None if data is None else cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_COLOR_2)
            if image is None:
                return None
            with suppress(SinkError):
                small = encode_jpeg(np.asarray(image, dtype=np.uint8), JPEG_QUALITY, THUMBNAIL_SIDE)
                with self._lock:
                    _remember(self._thumbnails, key, small)
        return small

    def map_png(self, key: str) -> bytes | None:
        """Its map as 8-bit grey PNG."""
        snapshot = read_snapshot(self._folder, key)
        return None if snapshot is None else _bytes(snapshot.map)

    def record(self, key: str) -> dict[str, Any] | None:
        """What is known about it."""
        snapshot = read_snapshot(self._folder, key)
        if snapshot is None:
            return None
        return {"pixel_threshold": round(self._pixel_threshold(), 6)} | snapshot.record


def _entry(snapshot: Snapshot) -> Entry | None:
    """A row of the list; None for a record that was tampered with."""
    record = snapshot.record
    try:
        return Entry(
            snapshot.name,
            datetime.fromisoformat(record["time"]).timestamp(),
            str(record.get("stream", "")),
            str(record["class"]),
            float(record["score"] or 0.0),
            float(record["threshold"] or 0.0),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _remember(cache: OrderedDict[str, Any], key: str, value: Any, most: int = MAX_ENTRIES) -> None:
    cache[key] = value
    while len(cache) > most:
        cache.popitem(last=False)


def _bytes(path: Path) -> bytes | None:
    try:
        return read_small(path)
    except OSError:
        return None
