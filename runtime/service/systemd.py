"""What a service tells systemd, by sd_notify(3)'s protocol.

Of the libraries for it, `sdnotify` is unmaintained since 2017 and knows neither RELOADING nor the watchdog's variables,
and `systemd-python` needs a compiler and libsystemd's headers on the Jetson: the protocol is one datagram.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping, MutableMapping

from kanoclip.runtime.errors import one_line

log = logging.getLogger(__name__)


class Notifier:
    """Datagrams to systemd. None of them ever blocks or raises: what runs is more important than who watches it.

    Args:
        address: A path, or the name of an abstract socket after `@`; None where nobody listens.
    """

    def __init__(self, address: str | None) -> None:
        self._failed = False
        if address and address[0] not in "/@":  # such as vsock:, which systemd 254 and newer give a virtual machine
            log.warning("NOTIFY_SOCKET=%s is neither a path nor an abstract socket: systemd is not told", address)
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
            Whether it was said; also of the other messages.
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
        """Sends lines of `NAME=value`; says once that it fails."""
        if self._address is None:
            return False
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
                connection.setblocking(False)
                connection.sendto(message.encode(), address)
        except OSError as error:
            if not self._failed:
                log.warning("systemd cannot be told (%s: %s)", self._address, error.strerror or error)
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
