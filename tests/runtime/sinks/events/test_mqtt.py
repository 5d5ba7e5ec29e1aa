"""MQTT against a real mosquitto that is killed, restarted, stopped and misled."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from authority import make_authority
from broker import Broker, Subscriber, Wire, free_port, wait_until
from sink_helpers import ANOMALY, NORMAL, in_alarm, make_frame

from kanoclip.runtime.errors import SettingsError, SinkError
from kanoclip.runtime.sinks.events import mqtt
from kanoclip.runtime.sinks.events.events import Events
from kanoclip.runtime.sinks.events.mqtt import MqttSink
from kanoclip.runtime.sinks.events.mqtt_config import MqttConfig
from kanoclip.runtime.sinks.jsonl import record

pytestmark = [pytest.mark.timeout(120), pytest.mark.programs("mosquitto")]


@pytest.fixture
def broker(program, tmp_path):
    broker = Broker(program("mosquitto"), tmp_path).start()
    yield broker
    broker.stop()


@pytest.fixture
def watcher(broker):
    watcher = Subscriber(broker.port)
    broker.save()
    yield watcher
    watcher.stop()


@contextmanager
def sink_to(port, said, *, host="127.0.0.1", **options):
    sink = MqttSink(MqttConfig.parse(f"mqtt://{host}:{port}/line3/camera1", **options), said.append)
    try:
        yield sink
    finally:
        sink.close()
    wait_until(lambda: all(t.name != "kanoclip-mqtt-connection" for t in threading.enumerate()))


def first_arrivals(frames):
    """Frames in the order in which each came first: QoS 1 may deliver twice."""
    return list(dict.fromkeys(frames))


def test_an_anomaly_arrives_as_its_json_record(broker, watcher):
    said = []
    with sink_to(broker.port, said) as sink:
        sink.write(make_frame(0), NORMAL)
        sink.write(make_frame(1), ANOMALY)
        wait_until(lambda: watcher.records)
    (record,) = watcher.records
    assert (record["frame"], record["score"], record["is_anomalous"]) == (1, 0.75, True)
    assert record["time"] == "2023-11-14T22:13:21.250+00:00" and record["regions"][0]["area"] == 600
    wait_until(lambda: watcher.statuses == ["online", "offline"])
    assert sink.dropped == 0 and said == []


def test_changes_of_the_alarm_alone_or_every_frame(broker, watcher):
    results = [(ANOMALY, False), (ANOMALY, True), (NORMAL, True), (NORMAL, False), (NORMAL, False)]
    for events, expected in ((Events.ALARMS, [1, 3]), (Events.FRAMES, [0, 1, 2, 3, 4])):
        watcher.records.clear()
        with sink_to(broker.port, [], events=events) as sink:
            for index, (detection, alarm) in enumerate(results):
                sink.write(make_frame(index), in_alarm(detection, alarm))
            wait_until(lambda expected=expected: len(watcher.records) >= len(expected))
        assert watcher.frames == expected


def kill_and_restart(broker, watcher, kills):
    """Publishes 200 messages a second while the broker dies again and again.

    Returns: sent, frames as they arrived, seconds from each return of the broker until it was caught up with, said
    """
    said, catching_up, sent = [], [], 0
    stop = threading.Event()
    with sink_to(broker.port, said) as sink:

        def publish():
            nonlocal sent
            while not stop.is_set():
                sink.write(make_frame(sent), ANOMALY)
                sent += 1
                time.sleep(0.005)

        publisher = threading.Thread(target=publish)
        publisher.start()
        try:
            for _ in range(kills):
                time.sleep(0.7)
                broker.kill()
                time.sleep(0.7)
                newest = sent - 1
                broker.start()
                returned = time.monotonic()
                wait_until(lambda newest=newest: newest in watcher.frames[-2000:], 30)
                catching_up.append(time.monotonic() - returned)
                watcher.wait()
        finally:
            stop.set()
            publisher.join()
        wait_until(lambda: (sent - 1) in watcher.frames[-2000:], 30)
        assert sink.dropped == 0
    return sent, list(watcher.frames), catching_up, said


def test_nothing_is_lost_while_the_broker_is_killed_and_restarted(broker, watcher):
    sent, frames, _, said = kill_and_restart(broker, watcher, 3)
    assert first_arrivals(frames) == list(range(sent)), "all of them, in order"
    assert len(said) == 6
    assert all("line3/camera1: connection lost" in line for line in said[::2])
    assert all("works again" in line and line.endswith("meanwhile: 0") for line in said[1::2])


@pytest.mark.nightly
def test_nothing_is_lost_over_thirty_kills(broker, watcher):
    sent, frames, catching_up, said = kill_and_restart(broker, watcher, 30)
    lost = set(range(sent)) - set(frames)
    print(f"\nsent {sent}, lost {len(lost)}, duplicates {len(frames) - len(set(frames))}, said {len(said)}")
    print(f"caught up after {max(catching_up):.2f} s at most, {sum(catching_up) / len(catching_up):.2f} s on average")
    assert not lost


def test_the_broker_dies_between_a_message_and_its_acknowledgement(broker, watcher):
    wire = Wire(broker.port)
    said = []
    with sink_to(wire.port, said) as sink:
        sink.write(make_frame(0), ANOMALY)
        wait_until(lambda: watcher.frames == [0])
        time.sleep(0.1)
        wire.swallow_answers = True  # the broker gets these, and we never learn of it
        for index in range(1, 6):
            sink.write(make_frame(index), ANOMALY)
        wait_until(lambda: watcher.frames == [0, 1, 2, 3, 4, 5])
        assert len(sink._outbox) == 5
        wire.swallow_requests = True  # and these stay on the way
        for index in range(6, 50):
            sink.write(make_frame(index), ANOMALY)
        time.sleep(0.2)
        broker.kill()
        wire.swallow_answers = wire.swallow_requests = False
        broker.start()
        wait_until(lambda: 49 in watcher.frames, 20)
        wait_until(lambda: len(sink._outbox) == 0)
    wire.stop()
    assert first_arrivals(watcher.frames) == list(range(50))
    assert set(watcher.frames[6:]) >= set(range(1, 50)), "what was not acknowledged is sent again"
    assert sink.dropped == 0


def test_what_is_beyond_the_bound_is_dropped_from_the_old_end_and_counted(broker, watcher):
    said = []
    with sink_to(broker.port, said, queue=50) as sink:
        wait_until(lambda: watcher.statuses == ["online"])
        broker.kill()
        wait_until(lambda: sink.outage is not None)
        for index in range(200):
            sink.write(make_frame(index), ANOMALY)
        assert sink.dropped == 150
        broker.start()
        wait_until(lambda: 199 in watcher.frames, 20)
    assert first_arrivals(watcher.frames) == list(range(150, 200))
    assert len(said) == 2 and said[1].endswith("results dropped meanwhile: 150")
    assert "up to 50 messages wait for it" in said[0]


def test_a_broker_that_is_away_from_the_start(program, tmp_path):
    broker, said = Broker(program("mosquitto"), tmp_path), []
    with sink_to(broker.port, said) as sink:
        for index in range(10):
            sink.write(make_frame(index), ANOMALY)
        wait_until(lambda: sink.outage is not None)
        assert "Connection refused" in said[0]
        broker.start()
        wait_until(lambda: sink.outage is None and len(sink._outbox) == 0, 20)
    broker.stop()
    assert len(said) == 2 and sink.dropped == 0


def test_a_broker_that_hangs_neither_blocks_nor_loses(broker, watcher, monkeypatch):
    monkeypatch.setattr(mqtt, "KEEPALIVE_S", 1)
    monkeypatch.setattr(mqtt, "CONNECT_TIMEOUT_S", 1.0)
    said = []
    with sink_to(broker.port, said) as sink:
        wait_until(lambda: watcher.statuses == ["online"])
        broker.pause()
        started = time.monotonic()
        for index in range(2000):
            sink.write(make_frame(index), ANOMALY)
        assert time.monotonic() - started < 2.0
        wait_until(lambda: sink.outage is not None)
        time.sleep(1.5)  # connections to a stopped process are accepted by the kernel, and never answered
        broker.go_on()
        wait_until(lambda: 1999 in watcher.frames, 30)
    assert first_arrivals(watcher.frames) == list(range(2000))
    assert sink.dropped == 0 and len(said) == 2


def test_the_end_of_a_run_does_not_wait_long_for_a_broker_that_is_gone(broker, monkeypatch):
    monkeypatch.setattr(mqtt, "CLOSE_GRACE_S", 0.5)
    sink = MqttSink(MqttConfig.parse(f"mqtt://127.0.0.1:{broker.port}/line3/camera1"), [].append)
    sink.write(make_frame(0), ANOMALY)
    wait_until(lambda: len(sink._outbox) == 0)
    broker.pause()
    for index in range(1, 8):
        sink.write(make_frame(index), ANOMALY)
    started = time.monotonic()
    with pytest.raises(SinkError, match="7 messages were not taken by the broker"):
        sink.close()
    assert time.monotonic() - started < 1.6 and sink.dropped == 7


DIES = """
import sys, time
from kanoclip.runtime.sinks.events.mqtt import MqttSink
from kanoclip.runtime.sinks.events.mqtt_config import MqttConfig
sink = MqttSink(MqttConfig.parse(sys.argv[1]))
while True: time.sleep(1)
"""


def test_the_last_will_tells_that_the_process_was_killed(broker, watcher):
    url = f"mqtt://127.0.0.1:{broker.port}/line3/camera1"
    process = subprocess.Popen([sys.executable, "-c", DIES, url])
    try:
        wait_until(lambda: watcher.statuses == ["online"], 20)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_until(lambda: watcher.statuses == ["online", "offline"])


@pytest.mark.programs("openssl", "mosquitto_passwd")
def test_tls_with_a_password_and_a_client_certificate(program, tmp_path):
    make_authority(program("openssl"), tmp_path)
    secret = "s3cret:w@rd"
    passwords = tmp_path / "passwords"
    passwords.touch()
    subprocess.run([program("mosquitto_passwd"), "-b", passwords, "camera", secret], check=True, capture_output=True)
    broker = Broker(
        program("mosquitto"),
        tmp_path,
        lines=("allow_anonymous false", f"password_file {passwords}"),
        listener=(
            f"cafile {tmp_path}/ca.pem",
            f"certfile {tmp_path}/server.pem",
            f"keyfile {tmp_path}/server.key",
            "require_certificate true",
        ),
    ).start()
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    context.load_cert_chain(tmp_path / "client.pem", tmp_path / "client.key")
    watcher = Subscriber(broker.port, user="camera", password=secret, context=context)
    broker.save()
    url = f"mqtts://localhost:{broker.port}/line3/camera1"
    files = {"ca": tmp_path / "ca.pem", "cert": tmp_path / "client.pem", "key": tmp_path / "client.key"}
    login = {"KANOCLIP_MQTT_USER": "camera", "KANOCLIP_MQTT_PASSWORD": secret}
    said = []
    try:
        sink = MqttSink(MqttConfig.parse(url, **files, environment=login), said.append)
        for index in range(300):
            sink.write(make_frame(index), ANOMALY)
        wait_until(lambda: len(watcher.frames) == 300)
        broker.kill()
        for index in range(300, 400):
            sink.write(make_frame(index), ANOMALY)
        broker.start()
        wait_until(lambda: 399 in watcher.frames, 20)
        sink.close()
        assert first_arrivals(watcher.frames) == list(range(400))
        assert len(said) == 2

        refusals = {
            "ertificate": (url, files | {"ca": tmp_path / "stranger.pem"}, login),
            "ostname|IP address": (url.replace("localhost", "127.0.0.1"), files, login),
            "Not authorized": (url, files, login | {"KANOCLIP_MQTT_PASSWORD": "guess"}),
            "connection|ertificate|EOF|eset": (url, {"ca": files["ca"]}, login),
        }
        for why, (where, which, who) in refusals.items():
            said.clear()
            sink = MqttSink(MqttConfig.parse(where, **which, environment=who), said.append)
            sink.write(make_frame(), ANOMALY)
            wait_until(lambda: said)
            with pytest.raises(SinkError):
                sink.close()
            assert len(said) == 1
            assert any(part in said[0] for part in why.split("|")), said
            assert "guess" not in said[0] and secret not in said[0]
    finally:
        watcher.stop()
        broker.stop()


def test_files_that_are_no_certificates(tmp_path):
    (tmp_path / "x.pem").write_text("nonsense")
    for files in ({"ca": tmp_path / "x.pem"}, {"ca": tmp_path / "none.pem"}, {"cert": tmp_path / "x.pem"}):
        with pytest.raises(SettingsError, match=r"--mqtt-c(a|ert) .*\.pem: no certificate"):
            MqttSink(MqttConfig.parse(f"mqtts://localhost:{free_port()}/x", **files))


def test_the_record_is_that_of_the_json_lines(broker, watcher):
    with sink_to(broker.port, []) as sink:
        sink.write(make_frame(3), ANOMALY)
        wait_until(lambda: watcher.records)
    assert watcher.records == [json.loads(json.dumps(record(make_frame(3), ANOMALY)))]
