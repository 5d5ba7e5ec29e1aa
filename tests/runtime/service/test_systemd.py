"""sd_notify over real sockets of the test's own, by path and abstract, and what goes wrong with them."""

from __future__ import annotations

import os
import socket
import sys
import time
import uuid

import pytest

from kanoclip.runtime.service.systemd import Notifier, watchdog_seconds

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="abstract sockets are Linux's")


@pytest.fixture(params=["path", pytest.param("abstract", marks=linux)])
def manager(request, tmp_path):
    """(a bound socket, what systemd would put into $NOTIFY_SOCKET)."""
    name = f"kanoclip-test/{uuid.uuid4()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind("\0" + name if request.param == "abstract" else name)
        bound.settimeout(5)
        yield bound, "@" + name if request.param == "abstract" else name


def test_each_message_is_one_datagram(manager):
    bound, address = manager
    notifier = Notifier(address)
    assert notifier.listening
    assert notifier.ready() and bound.recv(4096) == b"READY=1"
    assert notifier.watchdog() and bound.recv(4096) == b"WATCHDOG=1"
    assert notifier.stopping() and bound.recv(4096) == b"STOPPING=1"
    assert notifier.status("belt: 12.0 fps\nREADY=0  é")
    assert bound.recv(4096) == "STATUS=belt: 12.0 fps READY=0 é".encode()
    before = time.monotonic_ns() // 1000
    assert notifier.reloading()
    first, second = bound.recv(4096).decode().split("\n")
    name, _, value = second.partition("=")
    assert (first, name) == ("RELOADING=1", "MONOTONIC_USEC")
    assert before <= int(value) <= time.monotonic_ns() // 1000


def test_the_variable_is_taken_away_from_children(manager):
    bound, address = manager
    environment = {"NOTIFY_SOCKET": address, "PATH": "/bin"}
    assert Notifier.from_environment(environment).ready() and bound.recv(4096) == b"READY=1"
    assert environment == {"PATH": "/bin"}
    assert not Notifier.from_environment(environment).listening


def test_a_full_queue_neither_blocks_nor_raises_and_is_said_once(manager, caplog):
    bound, address = manager
    notifier = Notifier(address)
    started = time.monotonic()
    sent = 0
    while notifier.watchdog():
        sent += 1
        assert sent < 100_000
    assert not notifier.ready() and not notifier.ready()
    assert time.monotonic() - started < 5
    assert [record.getMessage() for record in caplog.records] == [
        f"systemd cannot be reached ({address}: Resource temporarily unavailable)"
    ]
    for _ in range(sent):
        bound.recv(64)
    assert notifier.ready() and bound.recv(64) == b"READY=1"


@pytest.mark.parametrize("address", ["/no/such/socket", "/" + "x" * 300, "vsock:2:1234", "relative", "@" + "y" * 200])
def test_nobody_there_is_a_warning_and_no_failure(address, caplog):
    notifier = Notifier(address)
    assert not notifier.ready() and not notifier.ready()
    assert len(caplog.records) == 1


def test_without_systemd_nothing_is_said(caplog):
    for address in (None, ""):
        notifier = Notifier(address)
        assert not notifier.listening and not notifier.ready()
    assert not caplog.records


@pytest.mark.parametrize(
    "environment, seconds",
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid() + 1)}, None),
        ({"WATCHDOG_USEC": "500000"}, 0.5),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": ""}, None),
    ],
)
def test_the_watchdog_s_time(environment, seconds):
    assert watchdog_seconds(environment) == seconds
