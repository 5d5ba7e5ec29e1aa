"""A small server for health checks and metrics, for a box without the page."""

from __future__ import annotations

import ipaddress
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, NamedTuple

from kanoclip.runtime.errors import ServiceError
from kanoclip.runtime.service.health import Health, HealthReport

TIMEOUT_S = 5.0
"""A client that neither asks nor reads for so long is hung up on."""
REQUEST_S = 5.0
"""Longest from a client's coming to the end of its answer, however it sends and reads."""
CLIENTS = 16
"""So many are served at a time; for the next one, the oldest is hung up on."""
RESERVED = 4
"""Of them for clients of this machine."""
PER_ADDRESS = 4
"""Of them for one other machine."""
ROOM_S = 0.5


class Answer(NamedTuple):
    """What a client gets: status, content type and text."""

    status: int
    content_type: str
    body: bytes


def health_checks(health: Health) -> dict[str, Callable[[], Answer]]:
    """What answers /healthz and /readyz, for `serve_texts`."""
    return {"/healthz": partial(_checked, health.alive), "/readyz": partial(_checked, health.ready)}


@contextmanager
def serve_texts(
    texts: Mapping[str, Callable[[], Answer]], address: tuple[str, int], what: str
) -> Iterator[tuple[str, int]]:
    """Answers GET and HEAD in a thread while the block lasts.

    Args:
        texts: What makes each answer, by path; called in the thread that serves the client.
        address: Host and port.
        what: What is served, for the message and the thread's name.

    Yields:
        Host and port that are listened on.

    Raises:
        ServiceError: The address cannot be listened on.
    """
    try:
        server = _server(texts, address)
    except (OSError, UnicodeError) as error:  # a host name may also be one that IDNA cannot encode
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise ServiceError(
            f"{address[0]}:{address[1]} cannot be listened on for {what}: {reason}; does another kanoclip-run?"
        ) from None
    thread = threading.Thread(
        target=server.serve_forever,
        kwargs={"poll_interval": 0.2},
        name=f"kanoclip-{what.partition(' ')[0]}",
        daemon=True,
    )
    thread.start()
    try:
        yield server.server_name, server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(TIMEOUT_S)


def _checked(check: Callable[[], HealthReport]) -> Answer:
    report = check()
    body = json.dumps(report.as_json(), allow_nan=False).encode() + b"\n"
    return Answer(report.http_status, "application/json", body)


def _server(texts: Mapping[str, Callable[[], Answer]], address: tuple[str, int]) -> ThreadingHTTPServer:
    class Handler(_Handler):
        answers = texts

    class Server(_Server):
        address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET

    return Server(address, Handler)


@dataclass
class _Peer:
    """A client that is served.

    Attributes:
        host: Its address.
        until: When it is hung up on, in monotonic seconds.
    """

    host: str
    until: float

    @property
    def local(self) -> bool:
        """Whether it is on this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class _Server(ThreadingHTTPServer):
    """Bounded in threads and in the time of each, and silent about clients that go away.

    Where a client has no place, the oldest one is hung up on: an honest one is answered within milliseconds, so that
    the oldest is one that sends its request slowly, or never. Clients from elsewhere never take the places that are
    for this machine's own.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = CLIENTS

    def __init__(self, *args: Any) -> None:
        self._free = threading.BoundedSemaphore(CLIENTS)
        self._lock = threading.Lock()
        self._peers: dict[socket.socket, _Peer] = {}  # oldest first
        super().__init__(*args)

    def server_bind(self) -> None:
        """Binds without asking a name server for this machine's name, which may take long on a line's network."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def service_actions(self) -> None:
        """Hangs up on clients whose time is over; called several times a second."""
        now = time.monotonic()
        with self._lock:
            for peer in [peer for peer, its in self._peers.items() if its.until <= now]:
                self._hang_up(peer)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Gives a client a thread, for which room is made."""
        its = _Peer(str(client_address[0]), time.monotonic() + REQUEST_S)
        with self._lock:
            if not its.local:
                others = [peer for peer, one in self._peers.items() if not one.local]
                same = [peer for peer in others if self._peers[peer].host == its.host]
                if len(same) >= PER_ADDRESS:
                    self._hang_up(same[0])
                elif len(others) >= CLIENTS - RESERVED:
                    self._hang_up(others[0])
            if len(self._peers) >= CLIENTS:
                self._hang_up(
                    next((peer for peer, one in self._peers.items() if not one.local), next(iter(self._peers)))
                )
        if not self._free.acquire(timeout=ROOM_S):  # the thread of who was hung up on ends at once
            self.shutdown_request(request)
            return
        with self._lock:
            self._peers[request] = its
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serves a client in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._peers.pop(request, None)
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: a client that hung up is no event of ours."""

    def _hang_up(self, peer: socket.socket) -> None:
        """Wakes a client's thread, which then ends; the lock is held."""
        self._peers.pop(peer, None)
        with suppress(OSError):
            peer.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    answers: Mapping[str, Callable[[], Answer]]
    timeout = TIMEOUT_S
    server_version = "kanoclip"
    sys_version = ""

    def do_GET(self) -> None:
        """Answers."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Answers by status and headers alone."""
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        make = self.answers.get(self.path.partition("?")[0])
        if make is None:
            self.send_error(404, f"only {' and '.join(self.answers)} are here")
            return
        answer = make()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if with_body:
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: a probe comes every few seconds."""
