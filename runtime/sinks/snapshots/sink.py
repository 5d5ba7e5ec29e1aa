"""Images and records of anomalous frames in a ring on disk."""

from __future__ import annotations

import json
import logging
import re
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from kanoclip.runtime.sinks.base import BaseSink
from kanoclip.runtime.sinks.draw.draw import annotate
from kanoclip.runtime.sinks.draw.encode import encode_jpeg, encode_map
from kanoclip.runtime.sinks.draw.heat_map import Canvas
from kanoclip.runtime.sinks.events.events import EventFilter, Events
from kanoclip.runtime.sinks.images import JPEG_QUALITY
from kanoclip.runtime.sinks.jsonl import record
from kanoclip.runtime.sinks.snapshots.reader import ANNOTATED, IMAGE, MAP, RECORD
from kanoclip.runtime.sinks.snapshots.ring import SnapshotRing
from kanoclip.runtime.types import BadFrame, Detection, Frame

log = logging.getLogger(__name__)

IMAGE_QUALITY = 95
"""Of the image alone, which may be scored, labelled or learned from later."""


@dataclass(frozen=True, slots=True)
class SnapshotConfig:
    """What to keep of anomalous frames, and how much.

    Attributes:
        folder: Where; made when missing.
        events: `ANOMALIES` for every anomalous frame, `ALARMS` for the frame that raises a stream's alarm.
        max_bytes: Bytes of all snapshots, at most.
        max_count: Snapshots at most.
        min_interval_s: Seconds from one snapshot of a source to the next, at least: a part that is stuck in front of
            the camera must not push everything else out of the ring.
    """

    folder: Path
    events: Events = Events.ANOMALIES
    max_bytes: int = 1 << 30
    max_count: int = 1000
    min_interval_s: float = 1.0


class SnapshotSink(BaseSink):
    """Keeps the annotated image, the image alone, the map and the JSON record of anomalous frames.

    Their names begin with the time of capture (UTC) and the source: 20231114T221320.250Z_camera-0_00000042.jpg,
    .annotated.jpg, .map.png and .json. `snapshot_reader` lists and reads them.

    Args:
        config: Where, what and how much.
        untrained: The bundle has seeded weights: every annotated image says so.

    Raises:
        SinkError: The folder cannot be written, or another process keeps its snapshots there.
    """

    name = "snapshots"
    shows = True

    def __init__(self, config: SnapshotConfig, *, untrained: bool) -> None:
        self._config = config
        self._untrained = untrained
        self._canvas = Canvas()
        self._filter = EventFilter(config.events)
        self._ring = SnapshotRing(config.folder, config.max_bytes, config.max_count)
        self._saved_at: dict[str, float] = {}  # by stream, as the next
        self._skipped: dict[str, int] = {}
        self.skipped = 0

    def write(self, frame: Frame, detection: Detection) -> None:
        """Keeps the frame, if it is one of those wanted and the last one is not too recent.

        Raises:
            SinkError: It cannot be encoded or written.
        """
        if not self._filter.takes(frame, detection) or (self._config.events is Events.ALARMS and not detection.alarm):
            return
        now = time.monotonic()
        if now - self._saved_at.get(frame.stream, -1e9) < self._config.min_interval_s:
            self._skipped[frame.stream] = self._skipped.get(frame.stream, 0) + 1
            self.skipped += 1
            return
        values = record(frame, detection) | {
            "stream": frame.stream,
            "size": [frame.image.shape[1], frame.image.shape[0]],
            "pixel_threshold": round(float(detection.pixel_threshold), 6),
            "skipped_before": self._skipped.get(frame.stream, 0),
        }
        files = {
            IMAGE: encode_jpeg(frame.image, IMAGE_QUALITY),
            ANNOTATED: encode_jpeg(
                annotate(frame.image, detection, untrained=self._untrained, canvas=self._canvas), JPEG_QUALITY
            ),
            MAP: encode_map(detection.map),
            RECORD: (json.dumps(values, allow_nan=False, indent=1) + "\n").encode("ascii"),
        }
        self._ring.add(snapshot_name(frame), files)
        self._saved_at[frame.stream] = now
        self._skipped[frame.stream] = 0

    def skip(self, bad: BadFrame) -> None:
        """Keeps nothing of an image that could not be read."""

    def close(self) -> None:
        """Every snapshot is finished as it is written; the folder is free for others."""
        self._ring.close()
        if self.skipped:
            log.info(
                "snapshots: %d anomalous frames were not saved, each less than %g s after the one before",
                self.skipped,
                self._config.min_interval_s,
            )


def snapshot_name(frame: Frame) -> str:
    """What the files of a frame's snapshot begin with."""
    moment = datetime.fromtimestamp(frame.captured_at, timezone.utc)
    stamp = f"{moment:%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03d}Z"
    source = frame.stream or (Path(frame.source).name if "://" not in frame.source else frame.source)
    word = re.sub(r"[^0-9A-Za-z]+", "-", source).strip("-")[-40:] or "source"
    return f"{stamp}_{word}_{frame.index:08d}"
