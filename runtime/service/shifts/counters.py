"""Counts by source and hour. They are differences of what the stream counts anyway: a frame costs nothing more."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from kanoclip.runtime.errors import SettingsError, one_line
from kanoclip.runtime.service.shifts.plan import ShiftPlan
from kanoclip.runtime.stream.control.progress import Progress, SourceProgress
from kanoclip.runtime.system.files.lock import Lock, LockedError
from kanoclip.runtime.system.files.regular import read_regular
from kanoclip.runtime.system.paths import replace_file

log = logging.getLogger(__name__)

FILE = "counters.json"
_LOCK = ".kanoclip-counters.lock"
EVERY_S = 1.0
SAVE_S = 60.0
"""So much is lost at most in a power cut."""
MAX_ROWS = 20_000
"""Hours of sources: five sources for five months. The oldest go first."""
MAX_FILE = 16 << 20


@dataclass(frozen=True, slots=True)
class Counts:
    """What happened in an hour, or in several.

    Attributes:
        frames: Scored.
        anomalous: Of these, at or above the threshold.
        alarms: How often an alarm was raised.
        skipped: Images that could not be read.
    """

    frames: int = 0
    anomalous: int = 0
    alarms: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) + getattr(other, name) for name in _NAMES))

    def __sub__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) - getattr(other, name) for name in _NAMES))

    @classmethod
    def of(cls, source: SourceProgress) -> Counts:
        """A source's counts so far."""
        return cls(source.frames, source.anomalous, source.alarms, source.skipped)


_NAMES = tuple(field.name for field in fields(Counts))


class ShiftCounters:
    """Counts by source and hour, in a folder's file if one is given.

    Hours go by the wall clock and what is counted in them by the stream's own counters: a clock that is set back or
    forward moves what comes next into another hour, and neither loses nor doubles any frame.

    Args:
        plan: When shifts begin.
        folder: Where they are saved, made when missing; None for in memory.
        wall: Unix time in seconds.
        clock: Monotonic seconds.

    Raises:
        SettingsError: The folder cannot be used, or another process counts there.
    """

    def __init__(
        self,
        plan: ShiftPlan,
        folder: Path | None = None,
        *,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan = plan
        self._path = None if folder is None else folder / FILE
        self._wall, self._clock = wall, clock
        self._lock = threading.Lock()
        self._rows: dict[tuple[float, str], Counts] = {}
        self._before: dict[str, Counts] = {}
        self._ticked = self._saved = -math.inf
        self._changed = self._failing = False
        self._held: Lock | None = None
        if folder is not None:
            self._held = _take(folder)
            self._rows = _read(folder / FILE)
            self._saved = clock()

    def tick(self, progress: Progress) -> None:
        """Counts what came since the last call; called all the time by the main thread."""
        now = self._clock()
        if now - self._ticked < EVERY_S:
            return
        self._ticked = now
        self._count(progress)
        if self._changed and now - self._saved >= SAVE_S:
            self._saved = now
            self._save()

    def close(self, progress: Progress | None = None) -> None:
        """Counts and saves the rest, and lets others count in the folder."""
        if progress is not None:
            self._count(progress)
        if self._changed:
            self._save()
        if self._held is not None:
            self._held.release()
            self._held = None

    def rows(self, since: float = -math.inf) -> list[tuple[float, str, Counts]]:
        """Start of the hour (Unix time), source and counts, oldest first; of hours that began at a time or later."""
        with self._lock:
            rows = sorted(self._rows.items())
        return [(start, source, counts) for (start, source), counts in rows if start >= since]

    def _count(self, progress: Progress) -> None:
        bucket = self.plan.bucket_of(self._wall())
        with self._lock:
            for source in progress.sources:
                counts = Counts.of(source)
                more = counts - self._before.get(source.name, Counts())
                if more == Counts():
                    continue
                self._before[source.name] = counts
                key = (bucket, source.name)
                self._rows[key] = self._rows.get(key, Counts()) + more
                self._changed = True
            if len(self._rows) > MAX_ROWS:
                for key in sorted(self._rows)[: len(self._rows) - MAX_ROWS]:
                    del self._rows[key]

    def _save(self) -> None:
        """Writes the file; a disk that is full is reported once, and tried again a minute later."""
        if self._path is None:
            return
        value = [{"start": start, "source": source, **asdict(counts)} for start, source, counts in self.rows()]
        try:
            replace_file(self._path, json.dumps({"version": 1, "hours": value}).encode(), durable=True)
        except OSError as error:
            if not self._failing:
                log.warning("%s cannot be written (%s): counting goes on in memory", self._path, error.strerror)
            self._failing = True
            return
        if self._failing:
            log.info("%s is written again", self._path)
        self._failing = self._changed = False


def _take(folder: Path) -> Lock:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return Lock(folder / _LOCK, leave=True)
    except LockedError:
        raise SettingsError(f"--counters {folder}: another kanoclip-run counts there; give each a folder") from None
    except OSError as error:
        raise SettingsError(f"--counters {folder}: cannot be used ({error.strerror or error})") from error


def _read(path: Path) -> dict[tuple[float, str], Counts]:
    """What was saved. A file that is damaged is put aside, so that nothing in it is lost."""
    try:
        content = read_regular(path, MAX_FILE)
        if content is None:
            raise ValueError(f"over {MAX_FILE >> 20} MiB")
        value = json.loads(content)
        return dict(_row(one) for one in value["hours"][-MAX_ROWS:])
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        aside = path.with_suffix(f".damaged-{int(time.time())}.json")
        log.warning("%s is damaged (%s): it is put aside as %s, and counting begins anew", path, one_line(error), aside)
        with suppress(OSError):
            path.rename(aside)
        return {}


def _row(one: dict[str, Any]) -> tuple[tuple[float, str], Counts]:
    numbers = [one[name] for name in _NAMES]
    start, source = one["start"], one["source"]
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers)
    if not (whole and isinstance(source, str) and isinstance(start, int | float) and math.isfinite(start)):
        raise ValueError("an hour has other values than counts")
    return (float(start), source), Counts(*numbers)
