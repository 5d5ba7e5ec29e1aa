"""The real server on loopback: ports, certificates, silent browsers, greedy clients, and an end in bounded time."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import replace

import numpy as np
import pytest
from page_helpers import TOKEN, FakeControl, a_frame, unpack
from websockets.sync.client import connect

from kanoclip.runtime.errors import SettingsError
from kanoclip.runtime.service.page import PageOptions, open_page, server
from kanoclip.runtime.service.page.auth.guard import SECURITY_HEADERS
from kanoclip.runtime.service.page.feed import connections
from kanoclip.runtime.service.page.feed.live import MAX_WATCHERS
from kanoclip.runtime.system.hardware import resident_bytes

WISH = json.dumps({"stream": "", "pictures": True, "span": 60})


@pytest.fixture
def start():
    """Starts a page on a free port of loopback."""
    with ExitStack() as stack:

        def starting(address="127.0.0.1:0", **options):
            page = stack.enter_context(open_page(PageOptions.parse(address, **options)))
            page.start(FakeControl())
            return page

        yield starting


def port_of(page):
    return int(page.url.rstrip("/").rpartition(":")[2])


def watch(page, **more):
    port = port_of(page)
    return connect(
        f"ws://127.0.0.1:{port}/api/live", origin=f"http://127.0.0.1:{port}", max_size=1 << 24, proxy=None, **more
    )


def get(page, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=5)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def page_threads():
    """Those that are left a second later: what is being encoded at the end is let finish."""
    deadline = time.monotonic() + 1
    while left := [thread for thread in threading.enumerate() if thread.name.startswith("kanoclip-page")]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return left


def test_it_serves_and_ends_and_leaves_no_thread(start):
    page = start()
    assert get(page, "/")[0].status == 200
    page.close()
    page.close()
    assert page_threads() == []
    with pytest.raises(ConnectionRefusedError):
        get(page, "/")


def test_the_port_is_taken_before_the_page_is_started():
    with open_page(PageOptions.parse("127.0.0.1:0")) as first:
        address = f"127.0.0.1:{port_of(first)}"
        with pytest.raises(SettingsError, match=f"--serve {address}: another program listens there"):
            open_page(PageOptions.parse(address))
    with open_page(PageOptions.parse(address)):  # and given back, though it was never started
        pass
    assert page_threads() == []


@pytest.mark.parametrize("address", ["203.0.113.7:8080", "no.such.host.invalid:8080"])
def test_an_address_of_another_machine_is_refused(address):
    with pytest.raises(SettingsError, match="--serve"):
        open_page(PageOptions.parse(address, token=TOKEN))


def test_frames_reach_a_browser(start):
    page = start()
    with watch(page) as browser:
        for index in range(5):
            page.hub.write(*a_frame(index, 0.3))
            browser.send(WISH)
            head, jpeg, _ = unpack(browser.recv(timeout=5))
            assert head["picture"]["frame"] == index and jpeg.startswith(b"\xff\xd8")


def writes_per_second(page, seconds, rate=200.0):
    """How many fps the stream's thread gets rid of, of `rate` that come."""
    frame, detection = a_frame(0, 0.3, size=(720, 1280))
    started, done, slowest = time.monotonic(), 0, 0.0
    while (now := time.monotonic()) - started < seconds:
        page.hub.write(frame, detection)
        slowest = max(slowest, time.monotonic() - now)
        done += 1
        time.sleep(max(0.0, started + done / rate - time.monotonic()))
    return done / seconds, slowest


def stalled_browser(page, small=True):
    """A browser that asks, shakes hands, and then never reads again."""
    peer = socket.socket()
    if small:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.connect(("127.0.0.1", port_of(page)))
    peer.sendall(
        b"GET /api/live HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    assert b"101" in peer.recv(4096)
    text = WISH.encode()
    for _ in range(50):  # fifty wishes at once, none of whose answers it takes
        peer.sendall(bytes([0x81, 0x80 | len(text)]) + bytes(4) + text)
    return peer


def test_browsers_that_stop_reading_cost_the_stream_nothing(start):
    page = start()
    alone, _ = writes_per_second(page, 1.5)
    with ExitStack() as stack:
        for _ in range(MAX_WATCHERS - 1):
            stack.enter_context(stalled_browser(page))
        healthy = stack.enter_context(watch(page))
        before = resident_bytes()
        beside, slowest = writes_per_second(page, 3)
        grown = resident_bytes() - before
        healthy.send(WISH)
        head, *_ = unpack(healthy.recv(timeout=5))
        assert "picture" in head  # who reads is served beside them
        assert beside >= 0.95 * alone and slowest < 0.5
        assert grown < 32 << 20
        started = time.monotonic()
        page.close()
        assert time.monotonic() - started < server.CLOSE_S + 1
    assert page_threads() == []


def test_the_kernel_drops_a_peer_that_takes_nothing(monkeypatch):
    monkeypatch.setattr(server, "STALLED_MS", 1000)
    with open_page(PageOptions.parse("127.0.0.1:0")) as page:
        control = FakeControl()
        page.start(control)
        with stalled_browser(page):
            held, deadline = page._server.server_state.tasks, time.monotonic() + 8
            assert held
            while held and time.monotonic() < deadline:
                frame, detection = a_frame(0, 0.3)
                noise = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), np.uint8)
                page.hub.write(replace(frame, image=noise), detection)  # 1 MB each: its buffers are soon full
                time.sleep(0.1)
            assert not held, "the silent browser is still held"


def test_connections_are_bounded(start, monkeypatch):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 5)
    page = start()
    with ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", port_of(page)))) for _ in range(12)]
        time.sleep(0.5)
        assert len(page._server.server_state.connections) == 5
        closed = 0
        for peer in idle:
            peer.settimeout(0.05)
            try:
                closed += peer.recv(1) == b""
            except ConnectionResetError:
                closed += 1
            except TimeoutError:
                pass
        assert closed == 7


def test_slow_connections_leave_room(start, monkeypatch):
    """127.0.0.2 and so on stand for other machines; a page on loopback sees them as such."""
    monkeypatch.setattr(connections, "is_loopback", lambda host: host == "127.0.0.1")
    page = start()

    def connect(last):
        place = (f"127.0.0.{last}", 0)
        return stack.enter_context(
            socket.create_connection(("127.0.0.1", port_of(page)), source_address=place, timeout=5)
        )

    def answers(peer):
        try:
            peer.sendall(b"GET /login HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            return peer.recv(9) == b"HTTP/1.1 "
        except OSError:
            return False

    with ExitStack() as stack:
        for number in range(100):
            with suppress(OSError):
                connect(2 + number % 60).sendall(b"GET / HTTP/1.1\r\nX: ")
        assert answers(connect(1)) and answers(connect(99))
        same = [connect(2) for _ in range(2 * connections.PER_ADDRESS)]
        assert answers(same[-1])
        held = [one for one in page._server.server_state.connections if one.client[0] == "127.0.0.2"]
        assert len(held) <= connections.PER_ADDRESS


def test_what_is_no_http_is_answered_with_all_headers(start):
    page = start()
    for request in (
        b"\x16\x03\x01\r\n\r\n",
        b"GET /a b c HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port_of(page)), timeout=5) as peer:
            peer.sendall(request)
            answer = b""
            while block := peer.recv(4096):
                answer += block
        assert answer.startswith(b"HTTP/1.1 4")
        for name in SECURITY_HEADERS:
            assert name.encode() + b": " in answer.lower()


def test_a_request_that_never_ends_is_hung_up_on(start, monkeypatch):
    monkeypatch.setattr(connections, "REQUEST_S", 0.3)
    page = start()
    for beginning in (
        b"",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ",
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port_of(page))) as peer:
            peer.sendall(beginning)
            peer.settimeout(5)
            started = time.monotonic()
            try:
                while peer.recv(4096):
                    pass
            except ConnectionResetError:
                pass
            assert time.monotonic() - started < 3
    # A browser that keeps its connection and asks again in time is served.
    connection = http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=5)
    for _ in range(3):
        connection.request("GET", "/api/session")
        assert connection.getresponse().read()
        time.sleep(0.4)


def test_a_live_connection_outlasts_the_time_for_a_request(start, monkeypatch):
    monkeypatch.setattr(connections, "REQUEST_S", 0.3)
    with watch(start()) as browser:
        time.sleep(1)
        browser.send(WISH)
        assert unpack(browser.recv(5))[0]["state"]["bundle"] == "line3"


def test_rubbish_is_answered_and_harms_nothing(start):
    page = start()
    for rubbish in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xff" * 200, b"GET\r\n\r\n", b"A" * 100_000):
        with socket.create_connection(("127.0.0.1", port_of(page))) as peer:
            peer.settimeout(5)
            try:
                peer.sendall(rubbish)
                while peer.recv(4096):
                    pass
            except ConnectionError:
                pass
    assert get(page, "/")[0].status == 200


@pytest.fixture(scope="module")
def certificate(tmp_path_factory, program):
    folder = tmp_path_factory.mktemp("tls")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(
        [
            *f"{program('openssl')} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split(),
            *subject,
            "-keyout",
            folder / "key.pem",
            "-out",
            folder / "cert.pem",
        ],
        check=True,
        capture_output=True,
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.mark.programs("openssl")
def test_it_serves_by_https(start, certificate):
    cert, key = certificate
    page = start(tls_cert=cert, tls_key=key, token=TOKEN)
    assert page.url.startswith("https://")
    context = ssl.create_default_context(cafile=cert)
    connection = http.client.HTTPSConnection("127.0.0.1", port_of(page), context=context, timeout=5)
    headers = {"Origin": page.url.rstrip("/"), "Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/login", f"token={TOKEN}", headers)
    answer = connection.getresponse()
    assert answer.status == 303 and "Secure" in answer.headers["set-cookie"]
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(cert)
    with pytest.warns(DeprecationWarning):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        http.client.HTTPSConnection("127.0.0.1", port_of(page), context=old, timeout=5).connect()


@pytest.mark.programs("openssl")
def test_bad_certificates_are_refused_by_name(certificate, tmp_path, program):
    cert, key = certificate
    locked, other = tmp_path / "locked.pem", tmp_path / "other.pem"
    openssl = program("openssl")
    subprocess.run(
        [openssl, "ec", "-in", key, "-aes256", "-passout", "pass:x", "-out", locked], check=True, capture_output=True
    )
    subprocess.run(
        [openssl, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", other], check=True, capture_output=True
    )
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("rubbish")
    for files in (
        (rubbish, key),
        (cert, rubbish),
        (cert, None),
        (cert, locked),
        (cert, other),
        (cert, tmp_path / "none.pem"),
    ):
        with pytest.raises(SettingsError, match="--tls-cert"):
            open_page(PageOptions.parse("127.0.0.1:0", tls_cert=files[0], tls_key=files[1]))
