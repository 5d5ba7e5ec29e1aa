"""JSON lines: one object a frame."""

from __future__ import annotations

import json
import math
import os
import stat
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.sinks.base import BaseSink
from kanoclip.runtime.sinks.files import busy, output_lock, sink_errors
from kanoclip.runtime.system.files.lock import OutputLock, take
from kanoclip.runtime.types import BadFrame, Detection, Frame

STDOUT = "-"


@dataclass(frozen=True, slots=True)
class Rotation:
    """How far a file of JSON lines may grow.

    Attributes:
        max_bytes: Size at which FILE becomes FILE.1, what was FILE.1 becomes FILE.2, and so on, as logrotate does.
        keep: Older files that stay, at least 1; the one beyond is deleted.
    """

    max_bytes: int
    keep: int = 5


class JsonLinesSink(BaseSink):
    """Writes one line a frame, flushed at once, so that the file can be followed while it grows.

    A scored frame: `frame, time, source, class, score, threshold, is_anomalous, alarm, regions, timings_ms`. An image
    that could not be read: `frame, source, error`. Of several sources each line also has its `stream`. So every index
    of the source has its line unless it was dropped, and `error` tells the two apart. Numbers that JSON cannot express
    (NaN, infinity) become null.

    A file that is gone on with, or that rotates, is made anew with the next line where it was moved away or deleted (by
    logrotate). To look at it costs more than the line itself, so this is not done for one that a run has to itself.

    Args:
        target: A file's path (folders are made), or `-` for standard output.
        append: Go on where the file ends, after a line that was cut; else it is overwritten.
        rotation: How far it may grow; None for no limit.

    Raises:
        SinkError: The file cannot be opened, or another process writes it.

    Examples:
        >>> import numpy as np
        >>> from kanoclip.runtime.types import Timings
        >>> image, map = np.zeros((48, 64, 3), np.uint8), np.zeros((8, 8), np.float32)
        >>> frame = Frame(0, "camera 0", 1.7e9, image, 4.0)
        >>> found = Detection(0.25, map, False, 0.5, (), "object", Timings(1.0, 20.0, 1.0, 1.0, 1.0))
        >>> sink = JsonLinesSink("frames.jsonl")
        >>> sink.write(frame, found)
        >>> sink.close()
        >>> json.loads(Path("frames.jsonl").read_text())["score"]
        0.25
    """

    name = "jsonl"
    shows = False

    def __init__(self, target: str, *, append: bool = False, rotation: Rotation | None = None) -> None:
        self._target = "standard output" if target == STDOUT else target
        self._path = None if target == STDOUT else Path(target)
        self._rotation = rotation
        self._watched = append or rotation is not None
        self._stream: TextIO = sys.stdout
        self._lock: OutputLock | None = None
        self._identity: tuple[int, int] | None = None
        self._reopen = threading.Event()
        if self._path is not None:
            with sink_errors(target):
                self._path.parent.mkdir(parents=True, exist_ok=True)
            # Of the name, whatever file has it: the file itself may be moved away and made anew.
            self._lock = output_lock(self._path)
            try:
                with sink_errors(target):
                    self._open(self._path, append=append)
            except BaseException:
                self._lock.release()
                raise

    def write(self, frame: Frame, detection: Detection) -> None:
        """Writes a scored frame.

        Raises:
            SinkError: The file cannot be written (disk full).
            BrokenPipeError: Whoever read standard output has gone.
        """
        self._line(record(frame, detection))

    def skip(self, bad: BadFrame) -> None:
        """Writes an image that could not be read.

        Raises:
            SinkError: The file cannot be written.
            BrokenPipeError: Whoever read standard output has gone.
        """
        stream = {"stream": bad.stream} if bad.stream else {}
        self._line({"frame": bad.index, "source": bad.source, **stream, "error": bad.reason})

    def reopen(self) -> None:
        """Has the next line go to the file that then has the name; may be called from any thread."""
        self._reopen.set()

    def close(self) -> None:
        """Closes the file; standard output stays open.

        Raises:
            SinkError: The last bytes cannot be written.
        """
        if self._path is not None:
            try:
                with sink_errors(self._target):
                    self._stream.close()
            finally:
                if self._lock is not None:
                    self._lock.release()

    def _line(self, values: dict[str, Any]) -> None:
        # ASCII only, so that neither a terminal's encoding nor a file name in no encoding at all can break a line.
        text = json.dumps(values, allow_nan=False, ensure_ascii=True) + "\n"
        try:
            if self._path is not None and (self._watched or self._reopen.is_set()):
                self._see_to_file(self._path, len(text))
            self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError:
            with sink_errors(self._target):
                raise

    def _see_to_file(self, path: Path, more: int) -> None:
        """Opens the file anew where it was moved away, or is full."""
        status = _status(path)
        if self._reopen.is_set() or _identity(status) != self._identity:
            self._reopen.clear()
            self._stream.close()
            status = self._open(path, append=True)
        size = status.st_size if status is not None else 0
        if self._rotation is not None and size and size + more > self._rotation.max_bytes:
            self._stream.close()
            for number in range(self._rotation.keep - 1, 0, -1):
                with suppress(FileNotFoundError):
                    path.with_name(f"{path.name}.{number}").replace(path.with_name(f"{path.name}.{number + 1}"))
            path.replace(path.with_name(f"{path.name}.1"))
            self._open(path, append=True)

    def _open(self, path: Path, *, append: bool) -> os.stat_result | None:
        """Opens the file; a line that a killed writer or a full disk cut is ended first."""
        # Writes go to the end of the file as it is then, also after somebody cut it (logrotate's copytruncate).
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            # Of the file, which another may write by another name of it: a hard link.
            if stat.S_ISREG(os.fstat(handle).st_mode):
                if not take(handle, path):
                    raise SinkError(busy(path))
                if not append:
                    os.ftruncate(handle, 0)
        except BaseException:
            os.close(handle)
            raise
        self._stream = os.fdopen(handle, "a", encoding="utf-8")
        status = _status(path)
        self._identity = _identity(status)
        if status is not None and status.st_size:
            with path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    self._stream.write("\n")
        return status


def _status(path: Path) -> os.stat_result | None:
    """What the file system says of the file that has the name now; None if none has."""
    try:
        return path.stat()
    except OSError:
        return None


def _identity(status: os.stat_result | None) -> tuple[int, int] | None:
    """What tells one file from another."""
    return None if status is None else (status.st_dev, status.st_ino)


def record(frame: Frame, detection: Detection) -> dict[str, Any]:
    """A scored frame as JSON values: pixels of the original frame, milliseconds, ISO-8601 UTC."""
    timings = detection.timings
    return {
        "frame": frame.index,
        "time": datetime.fromtimestamp(frame.captured_at, timezone.utc).isoformat(timespec="milliseconds"),
        "source": frame.source,
        **({"stream": frame.stream} if frame.stream else {}),
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
