"""A live source that is lost and comes back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from kanoclip.runtime.errors import SourceError, SourceRefusedError
from kanoclip.runtime.sources.base import Source, SourceHealth
from kanoclip.runtime.sources.network.connection import Connection, ConnectionStalledError
from kanoclip.runtime.system.backoff import Backoff
from kanoclip.runtime.types import BadFrame, Frame

log = logging.getLogger(__name__)

STALL_S = 5.0
"""A live source that delivers nothing for so long is lost."""
OPEN_LIMIT_S = 30.0
"""From the start of an opening to the first frame."""
STEADY_S = 10.0
"""A source that is lost again sooner is unsteady: what follows is reported when it has held for so long."""
REFUSED_WAIT_S = 60.0
"""Pause after a refused password: many cameras lock an account after a few of them."""
LEAVE_GRACE_S = 0.5
"""How long a stalled source may take to release its device before it is opened beside that."""
MOST_STUCK = 2
"""Threads that may hang in a driver's or library's call; with so many, none is started until one comes back."""
LONG_S = 10.0
"""A source that has been away for so long says why, where that has changed; most are back by then."""
MOST_REASONS = 5
"""So many different ones are reported while a source is away."""
CLOSE_GRACE_S = 3.0
"""How long `close` waits for a thread to release its device."""


class ReconnectingSource:
    """Frames of a live source for as long as they are wanted, over however many openings of it.

    When the source fails or stalls it is closed and opened again, with growing pauses, until it is back; the pauses
    are short enough to find a device within 5 s of its return. Frames are numbered on. An outage is reported once,
    and its end once. A new reason is reported too when the outage takes long, or when the reason needs a person. A
    source that ends without an error has ended.

    Args:
        open: Makes the source; called again after each failure, in another thread each time.
        name: What to call it, without credentials.
        opened: The source, if it is open already. Otherwise it is waited for, which is reported.
        stall_s: A source that delivers nothing for so many seconds is lost; None waits for ever, as for a camera that
            is triggered.
        open_limit_s: As `OPEN_LIMIT_S`.
        backoff: Pauses between tries.
        steady_s: As `STEADY_S`.
    """

    root: Path | None = None

    def __init__(
        self,
        open: Callable[[], Source],
        name: str,
        opened: Source | None = None,
        *,
        stall_s: float | None = STALL_S,
        open_limit_s: float = OPEN_LIMIT_S,
        backoff: Backoff | None = None,
        steady_s: float = STEADY_S,
    ) -> None:
        self.name = name
        self.live = opened is None or opened.live
        self.count = None if opened is None else opened.count
        self.fps = None if opened is None else opened.fps
        self._open = open
        self._stall_s = stall_s
        self._open_limit_s = open_limit_s
        self._backoff = backoff or Backoff()
        self._opened = opened
        self._interrupted = threading.Event()
        self._connection: Connection | None = None
        self._stuck: list[Connection] = []
        self._outage = _Outage(name, steady_s)

    @property
    def reconnects(self) -> int:
        """How often it came back."""
        return self._outage.reconnects

    def health(self) -> SourceHealth:
        """How it is now; may be called from any thread."""
        since, reason = self._outage.lost_since, self._outage.reason
        lost_s = None if since is None else time.monotonic() - since
        return SourceHealth(since is None, self.reconnects, lost_s, None if since is None else reason)

    def frames(self) -> Iterator[Frame | BadFrame]:
        """Yields frames until the source ends by itself, or `interrupt` is called.

        Raises:
            SourceRefusedError: It never worked, and trying again is no remedy.
            Exception: A defect, which no trying again repairs.
        """
        index = 0
        waits = self._backoff.waits()
        while not self._interrupted.is_set():
            opened, self._opened = self._opened, None
            connection = self._connection = Connection(self._open, opened)
            if self._interrupted.is_set():  # it may have been called before there was anything to leave
                connection.leave()
            pause = None
            try:
                while (frame := connection.take(self._patience(connection))) is not None:
                    self._adopt(connection.source)
                    self._outage.over(connection.since)
                    yield replace(frame, index=index)
                    index += 1
                return
            except ConnectionStalledError:
                self._outage.begin(self._silence(connection))
                connection.leave()
                connection.join(LEAVE_GRACE_S)
                self._stuck.append(connection)
            except SourceRefusedError as error:
                if not index and not self._outage.reconnects:
                    raise
                self._outage.begin(str(error), refused=True)
                pause = REFUSED_WAIT_S
            except SourceError as error:
                self._outage.begin(str(error))
            finally:
                connection.leave()
            if connection.delivered and time.monotonic() - connection.since > self._outage.steady_s:
                waits = self._backoff.waits()
            self._interrupted.wait(next(waits) if pause is None else pause)
            self._wait_for_stuck()

    def interrupt(self) -> None:
        """Makes `frames` end soon; may be called from any thread."""
        self._interrupted.set()
        connection = self._connection
        if connection is not None:
            connection.leave()

    def close(self) -> None:
        """Ends what is open, and waits a little for it."""
        self.interrupt()
        if self._opened is not None:  # never read
            self._opened.close()
            self._opened = None
        deadline = time.monotonic() + CLOSE_GRACE_S
        connections = [*self._stuck, *([] if self._connection is None else [self._connection])]
        for connection in connections:
            connection.join(max(0.0, deadline - time.monotonic()))

    def _patience(self, connection: Connection) -> float | None:
        """Seconds to wait for the next frame."""
        if not connection.delivered:
            return max(self._open_limit_s, self._stall_s or 0.0) if self._stall_s is not None else None
        return self._stall_s

    def _silence(self, connection: Connection) -> str:
        if connection.delivered:
            return f"{self.name}: nothing for {self._stall_s:g} s"
        return f"{self.name}: no frame within {self._open_limit_s:g} s of opening it"

    def _adopt(self, source: Source | None) -> None:
        """Takes over what only an open source knows."""
        if source is not None and self.fps is None:
            self.fps = source.fps

    def _wait_for_stuck(self) -> None:
        """Forgets threads that have ended; waits while too many hang."""
        while not self._interrupted.is_set():
            self._stuck = [connection for connection in self._stuck if connection.alive]
            if len(self._stuck) < MOST_STUCK:
                return
            self._outage.begin(f"{self.name}: its driver or library hangs ({len(self._stuck)} calls do not return)")
            self._interrupted.wait(0.2)


class _Outage:
    """What is reported about losing a source, and when.

    One thread writes; `lost_since`, `reason` and `reconnects` are read by others.
    """

    def __init__(self, name: str, steady_s: float) -> None:
        self.steady_s = steady_s
        self.reconnects = 0
        self.lost_since: float | None = None
        self.reason: str | None = None
        self._name = name
        self._ever = False
        self._reported: set[str] = set()  # kinds of outage that were reported, and whose end was not
        self._began = 0.0  # of the outage that was reported
        self._unsteady = False
        self._ended: float | None = None  # when the last end was reported
        self._losses = 0

    def begin(self, reason: str, *, refused: bool = False) -> None:
        """It cannot be opened, or was lost."""
        now = time.monotonic()
        if self.lost_since is None:
            self.lost_since = now
            if self._ever:
                self._losses += 1
        self.reason = reason
        kind = _kind(reason)
        if not self._reported:
            self._began = now
            self._losses = 1
            if self._ended is not None and now - self._ended < self.steady_s:
                self._unsteady = True
            self._report(self._first_words(reason))
            self._reported.add(kind)
        elif kind in self._reported or len(self._reported) >= MOST_REASONS or self._unsteady:
            return
        elif refused or now - self._began > LONG_S:
            again = f"trying again every {REFUSED_WAIT_S:.0f} s" if refused else "still trying"
            self._report(f"{reason}; {again}")
            self._reported.add(kind)

    def over(self, since: float) -> None:
        """A frame came from a connection that began at `since`."""
        now = time.monotonic()
        if self.lost_since is not None:
            if self._ever:
                self.reconnects += 1
            self.lost_since = None
            self.reason = None
        self._ever = True
        if not self._reported or (self._unsteady and now - since < self.steady_s):
            return
        often = f", lost {self._losses} times meanwhile" if self._losses > 1 else ""
        log.info(
            "%s: back after %.1f s (reconnect %d%s)",
            *(self._name, now - self._began, self.reconnects, often),
            extra={"event": "source_back", "source": self._name, "reconnects": self.reconnects},
        )
        self._reported.clear()
        self._ended, self._unsteady = now, False

    def _first_words(self, reason: str) -> str:
        if not self._ever:
            return f"{reason}; waiting for it"
        if self._unsteady:
            return f"{reason}; unsteady: more is reported when it has held for {self.steady_s:.0f} s"
        return f"{reason}; trying again until it is back"

    def _report(self, words: str) -> None:
        log.warning("%s", words, extra={"event": "source_lost", "source": self._name})


def _kind(reason: str) -> str:
    """A reason without its numbers, by which the same outage is known again."""
    return "".join(character for character in reason if not character.isdigit())
