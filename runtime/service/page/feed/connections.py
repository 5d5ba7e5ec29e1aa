"""HTTP connections that cannot be had without end, nor held without asking for anything."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 64
"""A browser takes six at most. More would use up the files that a camera needs when it is opened again."""
REQUEST_S = 10.0
"""Longest that a request may take to come in."""


class BoundedHttp(H11Protocol):
    """uvicorn's protocol with a bound on the number of connections and on the time to send a request."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._overdue: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes a connection, or hangs up where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self._wait()

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
