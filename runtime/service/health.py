"""What the health checks say: /healthz (does the process work?) and /readyz (are there verdicts?)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from kanoclip.runtime.service.liveness import Liveness
from kanoclip.runtime.stream.control.progress import Progress
from kanoclip.runtime.stream.control.protocol import Control

MAX_FRAME_AGE_S = 10.0


@dataclass(frozen=True, slots=True)
class HealthReport:
    """An answer.

    Attributes:
        ok: Whether all is well.
        status: One word for a program.
        reasons: What is not well, a sentence each; empty when `ok`.
        facts: JSON values that go with it.
    """

    ok: bool
    status: str
    reasons: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def http_status(self) -> int:
        """200, or 503 as probes expect it."""
        return 200 if self.ok else 503

    def as_json(self) -> dict[str, Any]:
        """The answer's body."""
        return {"status": self.status, "reasons": list(self.reasons), **self.facts}


class Health:
    """What is known of a process that scores a stream; every method may be called from any thread.

    Until `attach`, the engine is being loaded: alive, but not ready, however long that takes.

    Args:
        max_frame_age_s: Ready while the last frame of each source, and the last verdict, are at most so old.
        clock: Seconds, monotonic.
    """

    def __init__(self, max_frame_age_s: float = MAX_FRAME_AGE_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_age = max_frame_age_s
        self._clock = clock
        self._started = clock()
        self._control: Control | None = None
        self._liveness = Liveness(clock)
        self._scored = 0
        self._scored_at: float | None = None
        self._doing: str | None = None

    def attach(self, control: Control) -> None:
        """The engine is loaded, and this is the stream; from here on `tick` must be called all the time."""
        self._liveness.excuse()
        self._control = control

    def tick(self, progress: Progress) -> None:
        """Takes the stream's state from its main thread."""
        self._liveness.tick(progress, paused=progress.paused)
        if progress.frames != self._scored:
            self._scored, self._scored_at = progress.frames, self._clock()

    def stopping(self) -> None:
        """The stream is on its way out: alive to the end, and not ready."""
        self._doing = "it is stopping"

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """While the block lasts nobody waits for the stream to move."""
        before, self._doing = self._doing, "its settings are being read anew"
        try:
            yield
        finally:
            self._liveness.excuse()
            self._doing = before

    def failure(self) -> str | None:
        """Why this process should be started again; None while it should not."""
        return None if self._control is None or self._doing is not None else self._liveness.failure()

    def alive(self) -> HealthReport:
        """/healthz: not ok when only a new start helps."""
        failure = self.failure()
        facts = {"uptime_s": round(self._clock() - self._started, 1)}
        if failure is not None:
            return HealthReport(False, "stuck", (failure,), facts)
        return HealthReport(True, "alive", (), facts)

    def ready(self) -> HealthReport:
        """/readyz: ok while frames come and are scored."""
        facts: dict[str, Any] = {"uptime_s": round(self._clock() - self._started, 1)}
        control = self._control
        if control is None:
            return HealthReport(False, "not ready", (self._doing or "the engine is being loaded",), facts)
        state, progress = control.state(), control.progress()
        age = None if self._scored_at is None else self._clock() - self._scored_at
        reasons = [reason for reason in (self._doing, self.failure()) if reason is not None]
        if state.paused:
            reasons.append("it is paused: frames go by unscored")
        reasons += self._late(progress)
        if not state.paused and not reasons:
            if age is None:
                reasons.append("no frame was scored yet")
            elif age > self._max_age:
                reasons.append(f"the last frame was scored {age:.1f} s ago")
        facts |= {
            "bundle": state.bundle,
            "backend": state.backend,
            "class": state.class_name,
            "frames": progress.frames,
            "anomalous": progress.anomalous,
            "fps": round(progress.fps, 2),
            "dropped": progress.dropped,
            "sink_dropped": progress.sink_dropped,
            "last_verdict_age_s": None if age is None else round(age, 2),
            "sources": [asdict(source) for source in progress.sources],
        }
        return HealthReport(not reasons, "not ready" if reasons else "ready", tuple(reasons), facts)

    def _late(self, progress: Progress) -> list[str]:
        """A sentence for each source that does not deliver."""
        found = []
        for source in progress.sources:
            if source.away is not None:
                found.append(f"{source.name} is away: {source.away}")
            elif source.last_frame_age_s is None:
                found.append(f"{source.name} has delivered no frame yet")
            elif source.last_frame_age_s > self._max_age:
                found.append(f"the last frame of {source.name} is {source.last_frame_age_s:.1f} s old")
        return found
