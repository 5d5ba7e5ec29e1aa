"""What a service tells systemd, by sd_notify(3)'s protocol.

Of the libraries for it, `sdnotify` is unmaintained since 2017 and knows neither RELOADING nor the watchdog's variables,
and `systemd-python` needs a compiler and libsystemd's headers on the Jetson: the protocol is one datagram.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager

from kanoclip.runtime.errors import one_line
from kanoclip.runtime.service.health import Health
from kanoclip.runtime.stream.control.progress import Progress

log = logging.getLogger(__name__)


class Notifier:
    """Datagrams to systemd. None of them ever blocks or raises: what runs is more important than who watches it.

    Args:
        address: A path, or the name of an abstract socket after `@`; None where nobody listens.
    """

    def __init__(self, address: str | None) -> None:
        self._failed = False
        if address and address[0] not in "/@":  # such as vsock:, which systemd 254 and newer give a virtual machine
            log.warning("NOTIFY_SOCKET=%s is neither a path nor an abstract socket: systemd gets no messages", address)
            address = None
        self._address = address or None

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] = os.environ) -> Notifier:
        """Takes $NOTIFY_SOCKET, and takes it away: a process that we start must not speak for us."""
        return cls(environ.pop("NOTIFY_SOCKET", None))

    @property
    def listening(self) -> bool:
        """Whether there is anybody to tell."""
        return self._address is not None

    def ready(self) -> bool:
        """Start-up, or a reload, is done.

        Returns:
            Whether it was sent; also of the other messages.
        """
        return self.send("READY=1")

    def reloading(self) -> bool:
        """A reload begins; `ready` ends it."""
        return self.send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> bool:
        """The service is on its way out."""
        return self.send("STOPPING=1")

    def watchdog(self) -> bool:
        """The watchdog is fed."""
        return self.send("WATCHDOG=1")

    def status(self, text: str) -> bool:
        """One line for `systemctl status`."""
        return self.send(f"STATUS={one_line(text)}")

    def send(self, message: str) -> bool:
        """Sends lines of `NAME=value`; logs once that it fails."""
        if self._address is None:
            return False
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
                connection.setblocking(False)
                connection.sendto(message.encode(), address)
        except OSError as error:
            if not self._failed:
                log.warning("systemd cannot be reached (%s: %s)", self._address, error.strerror or error)
            self._failed = True
            return False
        self._failed = False
        return True


def watchdog_seconds(environ: Mapping[str, str] = os.environ) -> float | None:
    """How long systemd waits for a sign of life (`WatchdogSec=`).

    Returns:
        Seconds; None where it does not wait for one, or for another process's.
    """
    try:
        seconds = int(environ.get("WATCHDOG_USEC", "")) / 1e6
        mine = int(environ.get("WATCHDOG_PID", os.getpid())) == os.getpid()
    except ValueError:
        return None
    return seconds if mine and seconds > 0 else None


STATUS_S = 10.0
"""A new line of status at most so often."""
READY_ANYWAY_S = 30.0
"""Where no frame comes for so long the service is up all the same: a boot does not wait for a camera."""


class Supervision:
    """Tells systemd what a stream does; does nothing where there is no systemd.

    READY=1 is sent after the first scored frame, or after `READY_ANYWAY_S` without one. WATCHDOG=1 is sent three times
    as often as it must be, while `Health.failure` is None: a detector that does not answer, or a main thread
    that does not come round, is started again by systemd; a camera that is away is not a reason for that.

    Args:
        notifier: Who gets the messages.
        health: Gets every tick, and scores whether the stream moves.
        watchdog_s: What `watchdog_seconds` says.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        notifier: Notifier,
        health: Health,
        watchdog_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._notifier = notifier
        self._health = health
        self._clock = clock
        self._beat_every = watchdog_s / 3 if watchdog_s is not None else None
        self._first_tick: float | None = None
        self._next_beat = self._next_status = 0.0
        self._ready = self._stopping = False
        self._stuck: str | None = None

    @classmethod
    def from_environment(cls, health: Health, environ: MutableMapping[str, str] = os.environ) -> Supervision:
        """As systemd has set the environment up."""
        return cls(Notifier.from_environment(environ), health, watchdog_seconds(environ))

    def tick(self, progress: Progress) -> None:
        """Takes the stream's state; called all the time by the main thread, also while no frame comes."""
        self._health.tick(progress)
        now = self._clock()
        if self._first_tick is None:
            self._first_tick = now
        if not self._ready and (progress.frames or now - self._first_tick >= READY_ANYWAY_S):
            # Said again at the next tick if systemd's queue was full.
            self._ready = self._notifier.ready() or not self._notifier.listening
        if self._beat_every is not None and now >= self._next_beat:
            self._next_beat = now + self._beat_every
            self._beat()
        if self._notifier.listening and now >= self._next_status:
            self._next_status = now + STATUS_S
            self._notifier.status(self._stuck or service_status(progress))

    def stopping(self) -> None:
        """The stream is asked to end; harmless when repeated, and in a signal's handler."""
        self._health.stopping()
        if not self._stopping:
            self._stopping = self._notifier.stopping()

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Wraps a reload; it is over for systemd whether it succeeded or not."""
        self._notifier.reloading()
        try:
            with self._health.reloading():
                yield
        finally:
            self._notifier.ready()

    def _beat(self) -> None:
        """Feeds the watchdog unless something is stuck, which is logged once."""
        failure = self._health.failure()
        if failure is None:
            self._notifier.watchdog()
            if self._stuck is not None:
                log.warning("it moves again")
        elif self._stuck is None:
            log.error("%s: systemd's watchdog is no longer fed", failure)
        self._stuck = failure


def service_status(progress: Progress) -> str:
    """The stream's state in one line, for `systemctl status`."""
    away = [f"{source.name} is away: {source.away}" for source in progress.sources if source.away is not None]
    if not progress.frames:
        return "; ".join(["waiting for the first frame", *away])
    figures = f"{progress.fps:.1f} fps, {progress.frames} scored, {progress.anomalous} anomalous"
    return "; ".join([f"{figures}, {progress.dropped} dropped", *away])
