"""A real mosquitto that can be killed, a subscriber that remembers, and a wire that swallows what it is told to."""

from __future__ import annotations

import json
import queue
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(true, seconds=10.0, what=""):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what or true}"
        time.sleep(0.01)


class Broker:
    """mosquitto in a folder; what it has promised to keep survives a kill."""

    def __init__(self, program, folder, *, lines=("allow_anonymous true",), listener=()):
        self.port = free_port()
        self._program = program
        self._config = folder / "mosquitto.conf"
        self._log = folder / "mosquitto.log"
        self._config.write_text(
            "\n".join(
                [
                    "user root",
                    "per_listener_settings false",
                    "persistence true",
                    f"persistence_location {folder}/",
                    "autosave_interval 0",  # when it is told to; after each change: 170 messages a second
                    "max_queued_messages 0",
                    f"listener {self.port} 127.0.0.1",
                    *listener,
                    *lines,
                ]
            )
            + "\n"
        )
        self.process = None

    def start(self):
        with self._log.open("ab") as log:
            self.process = subprocess.Popen([self._program, "-c", str(self._config)], stdout=log, stderr=log)
        wait_until(self._answers, what=lambda: self._log.read_text()[-2000:])
        return self

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def save(self):
        """Has it write down who subscribed to what."""
        saved = self._config.with_name("mosquitto.db")
        before = saved.stat().st_mtime_ns if saved.exists() else 0
        self.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: saved.exists() and saved.stat().st_mtime_ns > before)

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.go_on()
            self.process.kill()
            self.process.wait()

    def _answers(self):
        assert self.process.poll() is None, self._log.read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False


class Subscriber:
    """Collects what arrives under a topic, across restarts of the broker."""

    def __init__(self, port, topic="line3/#", *, user=None, password=None, context=None):
        self.records, self.statuses = [], []
        self._connected = threading.Event()
        self.client = Client(CallbackAPIVersion.VERSION2, client_id="watcher", clean_session=False)
        if user:
            self.client.username_pw_set(user, password)
        if context is not None:
            self.client.tls_set_context(context)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_message = self._on_message
        self.client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self.client.on_subscribe = lambda *_: self._connected.set()
        self.client.on_disconnect = lambda *_: self._connected.clear()
        self.client.connect("localhost", port, 10)
        self.client.loop_start()
        self.wait()

    def wait(self):
        assert self._connected.wait(10)

    def _on_message(self, client, userdata, message):
        if message.topic.endswith("/status"):
            self.statuses.append(message.payload.decode())
        else:
            self.records.append(json.loads(message.payload))

    @property
    def frames(self):
        return [record["frame"] for record in self.records]

    def stop(self):
        self.client.disconnect()
        self.client.loop_stop()


class Wire:
    """A TCP relay in front of the broker; either direction can be cut without the ends noticing."""

    def __init__(self, target):
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.swallow_answers = self.swallow_requests = False
        self._ends = queue.SimpleQueue()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._target), 5)
                except OSError:
                    near.close()
                    continue
                self._ends.put((near, far))
                for source, target, flag in ((near, far, "swallow_requests"), (far, near, "swallow_answers")):
                    threading.Thread(target=self._relay, args=(source, target, flag), daemon=True).start()

    def _relay(self, source, target, flag):
        with suppress(OSError):
            while data := source.recv(65536):
                if not getattr(self, flag):
                    target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def stop(self):
        self._listener.close()
        while not self._ends.empty():
            for end in self._ends.get():
                end.close()
