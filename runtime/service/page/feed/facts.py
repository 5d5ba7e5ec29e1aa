"""What browsers get beside images and scores."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from kanoclip.runtime.service.page.feed.hub import Hub
from kanoclip.runtime.service.page.teaching.view import summary
from kanoclip.runtime.stream.control.progress import Progress
from kanoclip.runtime.stream.control.protocol import Control, StreamState
from kanoclip.runtime.system import hardware as machine

HEALTH_EVERY_S = 1.0


class Unsaved:
    """Thresholds that were changed by the page and not saved, by class. Used from the server's thread alone."""

    def __init__(self) -> None:
        self._changes: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {}

    def changed(self, before: StreamState, after: StreamState) -> None:
        """Remembers what was there before the first change."""
        before_change = self.before_change(before)
        first = before_change if before_change is not None else _thresholds(before)
        self._changes[after.class_name] = (first, _thresholds(after))

    def saved(self, state: StreamState) -> None:
        """There is nothing to go back to."""
        self._changes.pop(state.class_name, None)

    def before_change(self, state: StreamState) -> tuple[float, float] | None:
        """Image and pixel threshold to go back to.

        None where they are as before, or where something else than the page has changed them since, such as SIGHUP.
        """
        first, last = self._changes.get(state.class_name, (None, None))
        current = _thresholds(state)
        return first if last == current and first != current else None


class Facts:
    """Puts together what the stream, its sources and the machine say; the dear part once a second for all browsers.

    Args:
        control: The stream.
        hub: Where its frames are.
        clock: Monotonic seconds.

    Attributes:
        unsaved: What the page changed and did not save.
        watching: Browsers that watch.
        changes: What the page has changed since it was started, counted.
        labels: What the page calls sources, by their names; for itself alone.
    """

    def __init__(self, control: Control, hub: Hub, clock: Callable[[], float] = time.monotonic) -> None:
        self.control, self.hub = control, hub
        self.unsaved = Unsaved()
        self.watching = 0
        self.changes = 0
        self.labels: dict[str, str] = {}
        self._clock = clock
        self._started = clock()
        self._thermometers = machine.Thermometers()
        self._health: dict[str, Any] = {}
        self._health_at = float("-inf")
        self._lock = threading.Lock()

    def state(self) -> dict[str, Any]:
        """What is scored, and by what, after so many changes by the page.

        By their number a browser tells a state that was on its way when it asked for a change from the one after it.
        """
        changes = self.changes
        state = self.control.state()
        more = {"kept": self.unsaved.before_change(state), "ended": self.hub.ended, "changes": changes}
        return asdict(state) | more | {"teaching": summary(self.control.teacher)}

    def sources(self, state: StreamState, progress: Progress) -> list[dict[str, Any]]:
        """Each source's figures, in their order; `stream` is what to ask for it by."""
        by_name = {source.name: source for source in progress.sources}
        rows = []
        for name, stream in zip(state.sources, state.streams, strict=True):
            label = self.labels.get(name, name)
            row: dict[str, Any] = {"name": name, "label": label, "stream": stream} | asdict(
                self.hub.feed(stream).count()
            )
            source = by_name.get(name)
            row |= {
                "fps": progress.fps if source is None else source.fps,
                "dropped": progress.dropped if source is None else source.dropped,
                "skipped": progress.skipped if source is None else source.skipped,
                "away": None if source is None else source.away or source.error,
                "reconnects": 0 if source is None else source.reconnects,
            }
            rows.append(row)
        return rows

    def health(self) -> tuple[float, dict[str, Any]]:
        """When it was found, and the figures of stream and machine."""
        with self._lock:
            now = self._clock()
            if now - self._health_at >= HEALTH_EVERY_S:
                self._health, self._health_at = self._measure(now), now
            return self._health_at, self._health

    def _measure(self, now: float) -> dict[str, Any]:
        progress, summary = self.control.progress(), self.control.summary()
        return {
            "fps": progress.fps,
            "frames": progress.frames,
            "anomalous": progress.anomalous,
            "skipped": progress.skipped,
            "dropped": progress.dropped,
            "sink_dropped": progress.sink_dropped,
            "latency_ms": {"p50": progress.latency_p50, "p95": progress.latency_p95, "p99": progress.latency_p99},
            "stages": [
                {"name": stage.name, "mean": stage.mean, "p50": stage.p50, "p95": stage.p95, "p99": stage.p99}
                for stage in summary.stages
                if stage.count
            ],
            "uptime_s": now - self._started,
            "memory_bytes": machine.resident_bytes(),
            "available_bytes": machine.available_bytes(),
            "temperatures": [asdict(row) for row in self._thermometers.read()],
            "watching": self.watching,
        }


def _thresholds(state: StreamState) -> tuple[float, float]:
    return state.threshold, state.pixel_threshold
