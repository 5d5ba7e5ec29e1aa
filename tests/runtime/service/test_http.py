"""The health server over real sockets: what it answers, and clients that do not behave."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request

import pytest

from kanoclip.runtime.errors import ServiceError
from kanoclip.runtime.service.health import Health
from kanoclip.runtime.service.http import CLIENTS, serve_health


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


def test_clients_that_hang_are_bounded_and_never_hold_up_the_end(health):
    with serve_health(health, ("127.0.0.1", 0)) as address:
        before = threading.active_count()
        silent = [socket.create_connection(address) for _ in range(CLIENTS + 20)]
        silent[0].sendall(b"GET /hea")
        deadline = time.monotonic() + 5
        while threading.active_count() < before + CLIENTS and time.monotonic() < deadline:
            time.sleep(0.01)
        assert threading.active_count() == before + CLIENTS
        for client in silent[:4]:  # they leave without a word
            client.close()
        answered = False
        while not answered and time.monotonic() < deadline:
            try:
                answered = get(address, "/healthz")[0] == 200
            except (urllib.error.URLError, ConnectionError):  # hung up on, while all threads are taken
                time.sleep(0.02)
        assert answered
        started = time.monotonic()
    assert time.monotonic() - started < 2
    for client in silent:
        client.close()


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
