"""JSON lines: one object a frame."""

from __future__ import annotations

import json
import math
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

from kanoclip.runtime.sinks.files import sink_errors
from kanoclip.runtime.types import BadFrame, Detection, Frame

STDOUT = "-"


class JsonLinesSink:
    """Writes one line a frame, flushed at once, so that the file can be followed while it grows.

    A judged frame: `frame, time, source, class, score, threshold, is_anomalous, alarm, regions, timings_ms`. A picture
    that could not be read: `frame, source, error`. So every index of the source has its line unless it was dropped, and
    `error` tells the two apart. Numbers that JSON cannot express (NaN, infinity) become null.

    Args:
        target: A file's path (overwritten; folders are made), or `-` for standard output.

    Raises:
        SinkError: The file cannot be opened.
    """

    name = "jsonl"
    shows = False

    def __init__(self, target: str) -> None:
        self._target = "standard output" if target == STDOUT else target
        self._owned = target != STDOUT
        self._stream: TextIO = sys.stdout
        if self._owned:
            with sink_errors(target):
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                self._stream = Path(target).open("w", encoding="utf-8")  # noqa: SIM115 - open as long as the sink

    def write(self, frame: Frame, detection: Detection) -> None:
        """Writes a judged frame.

        Raises:
            SinkError: The file cannot be written (disk full).
            BrokenPipeError: Whoever read standard output has gone.
        """
        self._line(record(frame, detection))

    def skip(self, bad: BadFrame) -> None:
        """Writes a picture that could not be read.

        Raises:
            SinkError: The file cannot be written.
            BrokenPipeError: Whoever read standard output has gone.
        """
        self._line({"frame": bad.index, "source": bad.source, "error": bad.reason})

    def close(self) -> None:
        """Closes the file; standard output stays open.

        Raises:
            SinkError: The last bytes cannot be written.
        """
        if self._owned:
            with sink_errors(self._target):
                self._stream.close()

    def _line(self, values: dict[str, Any]) -> None:
        # ASCII only, so that neither a terminal's encoding nor a file name in no encoding at all can break a line.
        text = json.dumps(values, allow_nan=False, ensure_ascii=True) + "\n"
        try:
            self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError:
            with sink_errors(self._target):
                raise


def record(frame: Frame, detection: Detection) -> dict[str, Any]:
    """A judged frame as JSON values: pixels of the original frame, milliseconds, ISO-8601 UTC."""
    timings = detection.timings
    return {
        "frame": frame.index,
        "time": datetime.fromtimestamp(frame.captured_at, timezone.utc).isoformat(timespec="milliseconds"),
        "source": frame.source,
        "class": detection.class_name,
        "score": _number(detection.score, 6),
        "threshold": _number(detection.threshold, 6),
        "is_anomalous": bool(detection.is_anomalous),
        "alarm": detection.alarm,
        "regions": [
            {
                "x": int(region.x),
                "y": int(region.y),
                "width": int(region.width),
                "height": int(region.height),
                "score": _number(region.score, 6),
                "area": int(region.area),
            }
            for region in detection.regions
        ],
        "timings_ms": {
            "capture": _number(frame.capture_ms, 3),
            "resize": _number(timings.resize, 3),
            "inference": _number(timings.inference, 3),
            "decide": _number(timings.decide, 3),
        },
    }


def _number(value: float, digits: int) -> float | None:
    """A finite number, rounded; None for what JSON cannot express."""
    return round(float(value), digits) if math.isfinite(value) else None
