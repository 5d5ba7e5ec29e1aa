"""The health server over real sockets: what it answers, and clients that do not behave."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack

import pytest
from health_server import serve_health

from kanoclip.runtime.errors import ServiceError
from kanoclip.runtime.service import http
from kanoclip.runtime.service.health import Health
from kanoclip.runtime.service.http import CLIENTS


def get(address, path, method="GET"):
    """(status, headers, body)."""
    request = urllib.request.Request(f"http://{address[0]}:{address[1]}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


@pytest.fixture
def health():
    return Health()


@pytest.fixture
def address(health):
    with serve_health(health, ("127.0.0.1", 0)) as bound:
        yield bound


def test_the_checks_follow_the_stream(health, address, make_stream):
    status, headers, body = get(address, "/healthz")
    assert status == 200 and json.loads(body)["status"] == "alive"
    assert headers["Content-Type"] == "application/json" and headers["Cache-Control"] == "no-store"
    status, _, body = get(address, "/readyz")
    assert (status, json.loads(body)["reasons"]) == (503, ["the engine is being loaded"])
    stream = make_stream("belt")
    health.attach(stream)
    stream.delivers()
    health.tick(stream.now)
    status, _, body = get(address, "/readyz?verbose=1")
    assert (status, json.loads(body)["status"]) == (200, "ready")
    assert get(address, "/readyz", "HEAD")[0] == 200 and get(address, "/readyz", "HEAD")[2] == b""


@pytest.mark.parametrize(
    "path, method, status", [("/", "GET", 404), ("/healthz/x", "GET", 404), ("/healthz", "POST", 501)]
)
def test_there_is_nothing_else(address, path, method, status):
    assert get(address, path, method)[0] == status


def test_clients_that_hang_are_bounded_and_blind_nobody(health):
    with serve_health(health, ("127.0.0.1", 0)) as address:
        before = threading.active_count()
        silent = [socket.create_connection(address) for _ in range(CLIENTS + 20)]
        silent[-1].sendall(b"GET /hea")
        for _ in range(5):
            assert get(address, "/healthz")[0] == 200
            assert threading.active_count() <= before + CLIENTS
        started = time.monotonic()
    assert time.monotonic() - started < 2
    for client in silent:
        client.close()


def test_a_request_has_so_long_however_slowly_it_comes(health, monkeypatch):
    monkeypatch.setattr(http, "REQUEST_S", 0.6)
    with serve_health(health, ("127.0.0.1", 0)) as address, socket.create_connection(address) as slow:
        slow.settimeout(0.05)
        sent = 0
        with pytest.raises(OSError):
            while sent < 2000:  # 100 s of a byte every 0.05 s
                slow.sendall(b"G")
                sent += 1
                try:
                    if slow.recv(1) == b"":
                        raise ConnectionResetError
                except TimeoutError:
                    continue
        assert sent < 1000


def test_clients_from_elsewhere_leave_room_for_those_of_this_machine(health, monkeypatch):
    """127.0.0.2 and so on stand for other machines."""
    monkeypatch.setattr(http._Peer, "local", property(lambda peer: peer.host == "127.0.0.1"))
    with serve_health(health, ("0.0.0.0", 0)) as (_, port), ExitStack() as opened:

        def connect(last):
            place = (f"127.0.0.{last}", 0)
            return opened.enter_context(socket.create_connection(("127.0.0.1", port), source_address=place))

        first = [connect(2) for _ in range(http.PER_ADDRESS)]
        local = [connect(1) for _ in range(http.RESERVED)]
        elsewhere = [connect(3 + number % 9) for number in range(2 * CLIENTS)]
        assert get(("127.0.0.1", port), "/healthz")[0] == 200

        def is_open(peer):
            peer.settimeout(0.05)
            try:
                return peer.recv(1) != b""
            except TimeoutError:
                return True
            except OSError:
                return False

        assert not any(map(is_open, first)) and all(map(is_open, local))
        assert sum(map(is_open, elsewhere)) <= CLIENTS - http.RESERVED


def test_a_port_that_is_taken_or_a_host_that_is_not_ours(health, address):
    with (
        pytest.raises(ServiceError, match=rf"127.0.0.1:{address[1]} cannot be listened on .*[Aa]ddress already in use"),
        serve_health(health, address),
    ):
        pass
    for host in ("192.0.2.1", "no such host", "x" * 80):
        with pytest.raises(ServiceError, match="cannot be listened on"), serve_health(health, (host, 0)):
            pass


def test_the_port_is_free_again_at_once(health, address):
    for _ in range(3):
        with serve_health(health, ("127.0.0.1", 0)) as first:
            assert get(first, "/healthz")[0] == 200
        with serve_health(health, first) as second:
            assert second == first


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6(health):
    try:
        with serve_health(health, ("::1", 0)) as (host, port):
            assert get((f"[{host}]", port), "/healthz")[0] == 200
    except ServiceError as error:
        pytest.skip(str(error))
