"""The webhook against real HTTP servers that refuse, fail, hang, and come back."""

from __future__ import annotations

import email.parser
import email.policy
import hashlib
import hmac
import itertools
import json
import socket
import ssl
import threading
import time

import cv2
import numpy as np
import pytest
from authority import make_authority
from broker import free_port, wait_until
from http_receiver import receiver
from sink_helpers import ANOMALY, NORMAL, make_frame

from kanoclip.runtime.errors import SettingsError, SinkError
from kanoclip.runtime.sinks.events import webhook
from kanoclip.runtime.sinks.events.events import Events
from kanoclip.runtime.sinks.events.webhook import WebhookSink
from kanoclip.runtime.sinks.events.webhook_config import Picture, WebhookConfig
from kanoclip.runtime.sinks.jsonl import record

pytestmark = pytest.mark.timeout(60)
NOTHING: dict[str, str] = {}


def sink_to(port, said, *, path="/hook", **options):
    options.setdefault("environment", NOTHING)
    url = options.pop("url", f"http://127.0.0.1:{port}{path}")
    return WebhookSink(WebhookConfig.parse(url, **options), untrained=False, notify=said.append)


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(webhook, "FIRST_RETRY_S", 0.1)
    monkeypatch.setattr(webhook, "ANSWER_TIMEOUT_S", 0.5)
    yield
    wait_until(lambda: all(t.name != "kanoclip-webhook-sender" for t in threading.enumerate()))


def test_an_anomaly_is_posted_as_its_record_over_one_connection():
    said = []
    with receiver(200) as to:
        sink = sink_to(to.port, said, path="/hook?line=3")
        sink.write(make_frame(0), NORMAL)
        for index in range(1, 6):
            sink.write(make_frame(index), ANOMALY)
        sink.close()
    assert to.frames == [1, 2, 3, 4, 5] and to.connections == 1
    _, path, headers, body = to.requests[0]
    assert path == "/hook?line=3" and headers["Content-Type"] == "application/json"
    assert "Authorization" not in headers and "X-Kanoclip-Signature" not in headers
    assert json.loads(body) == json.loads(json.dumps(record(make_frame(1), ANOMALY)))
    assert said == [] and sink.dropped == 0 and not sink.shows


@pytest.mark.parametrize(("picture", "taller"), [(Picture.PLAIN, False), (Picture.ANNOTATED, True)])
def test_an_image_goes_along(picture, taller):
    with receiver(204) as to:
        sink = sink_to(to.port, [], picture=picture)
        sink.write(make_frame(7, size=(1500, 2000)), ANOMALY)
        sink.close()
    _, _, headers, body = to.requests[0]
    head = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode()
    parts = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body).iter_parts()
    found = {part.get_param("name", header="Content-Disposition"): part for part in parts}
    assert json.loads(found["record"].get_payload(decode=True))["frame"] == 7
    data = np.frombuffer(found["picture"].get_payload(decode=True), np.uint8)
    height, width = cv2.imdecode(data, cv2.IMREAD_COLOR).shape[:2]
    assert width == 1280 and (height > 960) is taller and sink.shows


def test_signature_token_and_number():
    login = {"KANOCLIP_WEBHOOK_SECRET": "hush", "KANOCLIP_WEBHOOK_TOKEN": "t0ken"}
    with receiver(500, 200) as to:
        sink = sink_to(to.port, [], environment=login)
        sink.write(make_frame(0), ANOMALY)
        wait_until(lambda: len(to.requests) == 2)
        sink.close()
    for _, _, headers, body in to.requests:
        signed = headers["X-Kanoclip-Timestamp"].encode() + b"." + body
        expected = hmac.new(b"hush", signed, hashlib.sha256).hexdigest()
        assert headers["X-Kanoclip-Signature"] == f"sha256={expected}"
        assert headers["Authorization"] == "Bearer t0ken"
    assert len({headers["X-Kanoclip-Delivery"] for _, _, headers, _ in to.requests}) == 1


@pytest.mark.parametrize("moods", [(500, 503, 408), (429,), ("hang", 502)])
def test_failures_of_the_moment_are_tried_again_and_said_once(moods):
    said = []
    with receiver(*moods, 200) as to:
        sink = sink_to(to.port, said)
        for index in range(3):
            sink.write(make_frame(index), ANOMALY)
        wait_until(lambda: len(to.requests) == len(moods) + 3)
        wait_until(lambda: sink.outage is None)
        sink.close()
    assert to.frames == [0] * len(moods) + [0, 1, 2], "in order, none twice but for the tries"
    assert sink.dropped == 0 and len(said) == 2 and said[1].endswith("meanwhile: 0")
    assert ("no answer for 0.5 s" if moods[0] == "hang" else f"answered {moods[0]}") in said[0]


def test_pauses_grow():
    with receiver(500, 500, 500, 500, 200) as to:
        sink = sink_to(to.port, [])
        sink.write(make_frame(0), ANOMALY)
        wait_until(lambda: len(to.requests) == 5)
        sink.close()
    times = [at for at, *_ in to.requests]
    pauses = np.diff(times)
    assert all(later > 1.4 * earlier for earlier, later in itertools.pairwise(pauses)), pauses


def test_a_receiver_that_asks_for_a_pause_gets_it():
    with receiver((429, {"Retry-After": "1"}), 200) as to:
        sink = sink_to(to.port, [])
        sink.write(make_frame(0), ANOMALY)
        wait_until(lambda: len(to.requests) == 2)
        sink.close()
    assert 0.9 < to.requests[1][0] - to.requests[0][0] < 2.0


@pytest.mark.parametrize("status", [400, 401, 404, 410, 302])
def test_a_refusal_drops_the_message_and_only_that(status):
    said = []
    with receiver((status, {"Location": "/elsewhere"}), 200) as to:
        sink = sink_to(to.port, said)
        sink.write(make_frame(0), ANOMALY)
        sink.write(make_frame(1), ANOMALY)
        sink.close()
    assert to.frames == [0, 1] and sink.dropped == 1
    assert f"answered {status}" in said[0] and "the message was dropped" in said[0]
    assert said[1].endswith("meanwhile: 1") and len(said) == 2


def test_a_receiver_that_is_away_loses_only_what_is_beyond_the_bound():
    said, port = [], free_port()
    sink = sink_to(port, said, queue=10)
    sink.write(make_frame(0), ANOMALY)
    wait_until(lambda: sink.outage is not None)
    for index in range(1, 30):
        sink.write(make_frame(index), ANOMALY)
    assert sink.dropped == 20 and "Connection refused" in said[0]
    with receiver(200, port=port) as to:
        wait_until(lambda: len(to.requests) == 10)
        wait_until(lambda: sink.outage is None)
        sink.close()
    kept = to.frames
    assert kept[-9:] == list(range(21, 30)) and kept == sorted(kept) and len(kept) == 10
    assert len(said) == 2


def test_a_message_that_nobody_takes_in_time_is_given_up():
    with receiver(500) as to:
        sink = sink_to(to.port, [], deadline_s=0.4)
        sink.write(make_frame(0), ANOMALY)
        wait_until(lambda: sink.dropped == 1)
        assert 2 <= len(to.requests) <= 4
        sink.close()


def test_a_receiver_that_hangs_neither_blocks_nor_holds_the_end_up(monkeypatch):
    monkeypatch.setattr(webhook, "CLOSE_GRACE_S", 0.3)
    said = []
    with receiver("hang") as to:
        sink = sink_to(to.port, said, queue=50)
        slowest = 0.0
        for index in range(200):
            started = time.perf_counter()
            sink.write(make_frame(index), ANOMALY)
            slowest = max(slowest, time.perf_counter() - started)
        assert slowest < 0.1
        wait_until(lambda: sink.outage is not None)
        started = time.monotonic()
        with pytest.raises(SinkError, match=r"/\.\.\.: 50 messages were not taken"):
            sink.close()
        assert time.monotonic() - started < 1.0
    assert sink.dropped == 200
    assert len([line for line in said if "no answer" in line]) <= 1 and len(said) <= 2


def test_a_server_that_never_stops_answering_is_not_listened_to():
    stop = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def drip():
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                stop.wait(0.3)

    thread = threading.Thread(target=drip)
    thread.start()
    sink = sink_to(listener.getsockname()[1], [])
    for index in range(3):
        sink.write(make_frame(index), ANOMALY)
    wait_until(lambda: len(sink._outbox) == 0)
    sink.close()
    stop.set()
    listener.close()
    thread.join(5)
    assert sink.dropped == 0


@pytest.mark.programs("openssl")
def test_certificates_are_checked(program, tmp_path):
    make_authority(program("openssl"), tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    with receiver(200, context=context) as to:
        good = sink_to(0, said := [], url=f"https://localhost:{to.port}/x", ca=tmp_path / "ca.pem")
        good.write(make_frame(0), ANOMALY)
        wait_until(lambda: to.requests)
        good.close()
        assert said == []
        for url, ca in (
            (f"https://localhost:{to.port}/x", "stranger.pem"),
            (f"https://127.0.0.1:{to.port}/x", "ca.pem"),
        ):
            bad = sink_to(0, said := [], url=url, ca=tmp_path / ca)
            bad.write(make_frame(1), ANOMALY)
            wait_until(lambda said=said: said)
            with pytest.raises(SinkError):
                bad.close()
            assert "certificate verify failed" in said[0].lower() or "mismatch" in said[0].lower(), said
    assert to.frames == [0]


def test_every_frame_or_the_alarm():
    with receiver(200) as to:
        sink = sink_to(to.port, [], events=Events.FRAMES)
        for index in range(3):
            sink.write(make_frame(index), NORMAL)
        sink.close()
    assert to.frames == [0, 1, 2]


def test_credentials_are_taken_from_the_url_and_never_shown():
    config = WebhookConfig.parse("https://u:p%40ss@h.example:8443/services/T0/B0/SECRET?key=K", environment=NOTHING)
    assert config.url == "https://h.example:8443/services/T0/B0/SECRET?key=K"
    assert config.authorization == "Basic dTpwQHNz"
    assert config.shown == "https://h.example:8443/..."
    assert not any(word in repr(config) + config.shown for word in ("SECRET", "p@ss", "dTpw", "key=K"))


@pytest.mark.parametrize("url", ["h/x", "ftp://h/x", "http://", "http://h:port/QQ", "http://h/a b", "http://[h/QQ", ""])
def test_what_is_no_receiver(url):
    with pytest.raises(SettingsError, match="--webhook: it must be") as caught:
        WebhookConfig.parse(url, environment=NOTHING)
    assert "QQ" not in str(caught.value)


def test_what_does_not_go_together(tmp_path):
    with pytest.raises(SettingsError, match="for https:// only"):
        WebhookConfig.parse("http://h/", ca=tmp_path, environment=NOTHING)
    with pytest.raises(SettingsError, match="either USER:PASSWORD"):
        WebhookConfig.parse("http://u:p@h/", environment={"KANOCLIP_WEBHOOK_TOKEN": "x"})
    with pytest.raises(SettingsError, match="printable ASCII") as caught:
        WebhookConfig.parse("http://h/", environment={"KANOCLIP_WEBHOOK_TOKEN": "hush\nX: y"})
    assert "hush" not in str(caught.value)
    with pytest.raises(SettingsError, match="No such file"):
        sink_to(0, [], url="https://h/", ca=tmp_path / "none.pem")
