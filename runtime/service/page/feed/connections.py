"""HTTP connections that cannot be had without end, nor held without asking for anything."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from kanoclip.runtime.service.page.auth.guard import SECURITY_HEADERS
from kanoclip.runtime.service.page.options import is_loopback

MAX_CONNECTIONS = 64
"""A browser takes six at most. More would use up the files that a camera needs when it is opened again."""
RESERVED = 8
"""Of them for this machine's own programs, whatever comes over the network."""
PER_ADDRESS = 32
"""Of them for one other machine, which may be a proxy of several browsers."""
REQUEST_S = 10.0
"""Longest that a request may take to come in."""


_HEADERS = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]


class BoundedHttp(H11Protocol):
    """uvicorn's protocol with a bound on the number of connections and on the time to send a request."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._overdue: asyncio.TimerHandle | None = None
        self._since = self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes a connection; where there are too many, hangs up on the oldest that has not asked for anything yet."""
        super().connection_made(transport)
        if self._room():
            self._wait()
        else:
            transport.abort()

    @property
    def host(self) -> str:
        """Whose it is."""
        return self.client[0] if self.client else ""

    @property
    def asking(self) -> bool:
        """Whether its request has not come in yet."""
        return self._overdue is not None

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP, with the headers that all answers have."""
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close"), *_HEADERS]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=msg.encode("ascii", "replace")),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _room(self) -> bool:
        """Whether this connection may stay, after room was made for it."""
        others = [one for one in self.connections if one is not self and not one.transport.is_closing()]
        http = [one for one in others if isinstance(one, BoundedHttp)]
        if not is_loopback(self.host):
            remote = [one for one in http if not is_loopback(one.host)]
            for many, most in (
                ([one for one in remote if one.host == self.host], PER_ADDRESS),
                (remote, MAX_CONNECTIONS - RESERVED),
            ):
                if len(many) >= most and not _hang_up(many):
                    return False
        return len(others) < MAX_CONNECTIONS or _hang_up(http)

    def data_received(self, data: bytes) -> None:
        """Takes what came of a request."""
        if self._overdue is None:
            self._wait()
        super().data_received(data)
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._done()  # all of it is there, or it became a WebSocket

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hands the connection over; its request is there, though h11 has not reached its end."""
        self._done()
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._done()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._overdue = self.loop.call_later(REQUEST_S, self.transport.abort)

    def _done(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None


def _hang_up(connections: list[BoundedHttp]) -> bool:
    """Hangs up on the oldest of them that has not asked yet; False where all have."""
    waiting = [one for one in connections if one.asking and not one.transport.is_closing()]
    if not waiting:
        return False
    min(waiting, key=lambda one: one._since).transport.abort()
    return True
