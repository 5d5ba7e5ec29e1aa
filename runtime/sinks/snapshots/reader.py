"""Reading a folder of snapshots, also while they are written and deleted: names, then one record at a time."""

from __future__ import annotations

import heapq
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.system.files.regular import read_small

RECORD, IMAGE, ANNOTATED, MAP = ".json", ".jpg", ".annotated.jpg", ".map.png"
"""What the files of one snapshot end in. The record is written last, and deleted first: where it is, all are."""
SUFFIXES = (RECORD, IMAGE, ANNOTATED, MAP)

_NAME = r"[0-9]{8}T[0-9]{6}\.[0-9]{3}Z_[0-9A-Za-z-]{1,40}_[0-9]{8,15}"
NAME = re.compile(_NAME)
"""Capture time (UTC), source, number of the frame."""
FILE = re.compile(rf"({_NAME})({'|'.join(map(re.escape, SUFFIXES))})")
PARTIAL = re.compile(rf"\.({_NAME})({'|'.join(map(re.escape, SUFFIXES))})\.[0-9]+\.part(ial)?")
"""What a writer that was killed leaves; earlier versions said `partial`."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One anomalous frame on disk.

    Attributes:
        name: Sorts by the time of capture, then by source.
        record: What the JSON lines say of the frame; its `stream`; the image's `size`, [width, height]; the
            `pixel_threshold` that its regions were found by; and `skipped_before`: anomalous frames of the same source,
            since the snapshot before, not saved because they came too soon.
        annotated: The image with heat map, regions and verdict, JPEG.
        image: The image alone, JPEG.
        map: The anomaly map at the model's size, PNG of 8 bits grey: 255 is 1.
    """

    name: str
    record: dict[str, Any]
    annotated: Path
    image: Path
    map: Path


def newest_snapshots(folder: Path, count: int, before: str | None = None) -> list[str]:
    """Names of the newest snapshots, newest first.

    Args:
        folder: Where they are; none are in a folder that does not exist.
        count: So many at most.
        before: Only those older than this name, for the next page of a list.

    Raises:
        SinkError: The folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            found = (FILE.fullmatch(entry.name) for entry in entries)
            names = [match[1] for match in found if match is not None and match[2] == RECORD]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SinkError(f"{folder}: cannot be read ({error.strerror or error})") from error
    return heapq.nlargest(count, names if before is None else (name for name in names if name < before))


def read_snapshot(folder: Path, name: str) -> Snapshot | None:
    """One snapshot.

    Args:
        folder: Where it is.
        name: From `newest_snapshots`, or from outside: anything but a snapshot's name is refused.

    Returns:
        None where there is no such snapshot, or no longer.
    """
    if NAME.fullmatch(name) is None:
        return None
    try:
        record = json.loads(read_small(folder / f"{name}{RECORD}"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    annotated, image, map_file = (folder / f"{name}{suffix}" for suffix in (ANNOTATED, IMAGE, MAP))
    return Snapshot(name, record, annotated, image, map_file)
