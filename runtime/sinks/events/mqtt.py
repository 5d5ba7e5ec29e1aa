"""Results as MQTT messages: to a broker that may be away for a while."""

from __future__ import annotations

import logging
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kanoclip.runtime.errors import SettingsError, SinkError, one_line
from kanoclip.runtime.sinks.events.mqtt_config import MqttConfig
from kanoclip.runtime.sinks.events.outbox import Outbox, OutboxSink, record_bytes
from kanoclip.runtime.system.backoff import Backoff
from kanoclip.runtime.system.files.regular import check_regular, no_password
from kanoclip.runtime.types import Detection, Frame

if TYPE_CHECKING:
    from paho.mqtt.client import Client

log = logging.getLogger(__name__)

KEEPALIVE_S = 15
"""A broker that says nothing for so long is asked, and one that does not answer in that time again is left."""
CONNECT_TIMEOUT_S = 5.0
WINDOW = 16
"""Messages on their way to the broker at once. Below paho's own limit of 20, so that none waits in its queue: that one
loses nothing either (tried), but when it is full it refuses the newest instead of the oldest, and counts none."""
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 15.0
"""Pause before the first try to reach a broker again; it doubles with each up to the last."""
CLOSE_GRACE_S = 3.0
"""How long the end of a run waits for the broker to take what is left."""
ONLINE, OFFLINE = b"online", b"offline"


class MqttSink(OutboxSink[bytes]):
    """Publishes events as JSON records, each at least once and in their order (QoS 1).

    One thread connects, publishes and listens. While the broker is away messages wait in an `Outbox`; they leave it
    with the broker's acknowledgement, never before. Each connection starts from nothing: a message whose
    acknowledgement was lost with the one before is sent again, so a subscriber may see it twice, but never not at all.

    `TOPIC/status` holds `online` or `offline` (retained; the broker's last will says the latter for us).

    Args:
        config: Which broker, and what to send.
        notify: Takes a message when the broker goes away, and one when it is back.

    Raises:
        SettingsError: paho-mqtt is not installed, or a certificate cannot be read.
    """

    name = "mqtt"
    shows = False

    def __init__(self, config: MqttConfig, notify: Callable[[str], None] = log.warning) -> None:
        require_paho()
        super().__init__(
            f"mqtt {config.shown}",
            notify,
            events=config.events,
            queue=config.queue,
            queue_bytes=config.queue_bytes,
            slow="the broker is slower than events come",
            meanwhile=f"{config.queue} messages wait, and the oldest are dropped",
        )
        self._config = config
        self._context = _tls(config) if config.tls else None
        self._closing = threading.Event()
        self._deadline = 0.0
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._thread = threading.Thread(target=self._serve, name="kanoclip-mqtt-connection", daemon=True)
        self._thread.start()

    def write(self, frame: Frame, detection: Detection) -> None:
        """Queues a message, if the result is one of the events wanted."""
        if self._filter.takes(frame, detection):
            self._keep(record_bytes(frame, detection))
            self._wake()

    def close(self) -> None:
        """Sends what is left, for up to `CLOSE_GRACE_S`, and says goodbye.

        Raises:
            SinkError: Messages are left that the broker did not take; they count as dropped.
        """
        self._deadline = time.monotonic() + CLOSE_GRACE_S
        self._closing.set()
        self._wake()
        # Only the search for the broker's address has no time limit of its own.
        self._thread.join(CLOSE_GRACE_S + 1.0)
        left = self._give_up_rest()
        if not self._thread.is_alive():
            self._wake_read.close()
            self._wake_write.close()
        if left:
            raise SinkError(f"{self._config.shown}: {left} messages were not taken by the broker before the end")

    def _wake(self) -> None:
        """Has the thread look for work now."""
        with suppress(OSError):  # full: it will wake anyhow
            self._wake_write.send(b"x")

    def _serve(self) -> None:
        """Thread: one connection after the other."""
        backoff = Backoff(FIRST_RETRY_S, LAST_RETRY_S, scatter=0.0)
        pauses = backoff.waits()
        while not self._closing.is_set():
            connection = _Connection(self._config, self._context, self._outbox)
            try:
                connection.open()
                while connection.turn(self._wake_read, self._closing.is_set(), self._deadline):
                    if connection.accepted and self._outage.words is not None:
                        self._outage.end(self._outbox.dropped)
                    if self._slow.words is not None and not len(self._outbox):
                        self._slow.end(self._outbox.dropped)
                why = connection.lost
            except (OSError, ssl.SSLError, ValueError) as error:
                why = f"{type(error).__name__} {one_line(error)}".strip()
            finally:
                connection.discard()
                self._outbox.put_back()
            if self._closing.is_set():
                return
            if connection.accepted:
                pauses = backoff.waits()
            self._outage.begin(why, self._outbox.dropped)
            self._closing.wait(next(pauses))


class _Connection:
    """One connection to a broker, served by whoever calls `turn`.

    paho is driven from outside: no thread of its own, so that nothing is left running when a broker stops answering.

    Attributes:
        accepted: Whether the broker has let us in.
        lost: Why the connection is over.
    """

    def __init__(self, config: MqttConfig, context: ssl.SSLContext | None, outbox: Outbox[bytes]) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.accepted = False
        self.lost = "the connection was closed"
        self._config = config
        self._outbox = outbox
        self._tickets: dict[int, int] = {}  # of our messages, by paho's message ids
        self._acknowledged: deque[int] = deque()
        self._leaving: int | None = None  # the message id of the goodbye
        self._give_up_at = time.monotonic() + CONNECT_TIMEOUT_S
        self._client: Client = Client(
            CallbackAPIVersion.VERSION2, client_id=config.client_id, clean_session=True, reconnect_on_failure=False
        )
        self._client.connect_timeout = CONNECT_TIMEOUT_S
        if config.user is not None:
            self._client.username_pw_set(config.user, config.password)
        if context is not None:
            self._client.tls_set_context(context)
        self._client.will_set(config.status_topic, OFFLINE, qos=1, retain=True)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish

    def open(self) -> None:
        """Connects; the broker's answer comes in a later `turn`.

        Raises:
            OSError: It cannot be reached.
        """
        self._client.connect(self._config.host, self._config.port, KEEPALIVE_S)
        self._give_up_at = time.monotonic() + CONNECT_TIMEOUT_S

    def turn(self, wake: socket.socket, closing: bool, deadline: float) -> bool:
        """Sends and receives what there is, and waits for more for a while.

        Args:
            wake: Readable when there is something new to send.
            closing: Send what is left, and leave.
            deadline: For that, on `time.monotonic`'s clock.

        Returns:
            False once the connection is over.
        """
        connection = self._client.socket()
        now = time.monotonic()
        if connection is None or (closing and now >= deadline):
            return False
        if not self.accepted and now >= self._give_up_at:
            self.lost = f"no answer for {CONNECT_TIMEOUT_S:g} s"
            return False
        if self.accepted:
            self._publish()
            if closing and self._leaving is None and not len(self._outbox):
                self._leaving = self._client.publish(self._config.status_topic, OFFLINE, qos=1, retain=True).mid
        if self._client.socket() is None:
            return False
        writes = [connection] if self._client.want_write() else []
        readable, writable, _ = select.select([connection, wake], writes, [], 0.1 if closing else 1.0)
        if wake in readable:
            with suppress(BlockingIOError):
                while wake.recv(4096):
                    pass
        if connection in readable:
            self._client.loop_read()
            while isinstance(connection, ssl.SSLSocket) and connection.fileno() >= 0 and connection.pending():
                self._client.loop_read()
        if writable and self._client.socket() is not None:
            self._client.loop_write()
        self._client.loop_misc()  # asks a silent broker whether it is there
        self._settle()
        if self._leaving is not None and self._leaving in self._acknowledged:
            self._client.disconnect()  # and so without the last will
            return False
        return self._client.socket() is not None

    def discard(self) -> None:
        """Closes the connection, whatever its state."""
        self._settle()
        connection = self._client.socket()
        if connection is not None:
            with suppress(OSError):
                connection.close()

    def _publish(self) -> None:
        """Sends waiting messages, as many as may be on their way at once."""
        while self._outbox.taken < WINDOW and (item := self._outbox.take()) is not None:
            ticket, message = item
            self._tickets[self._client.publish(self._config.topic, message, qos=1).mid] = ticket

    def _settle(self) -> None:
        """Takes note of what has arrived."""
        for mid in [mid for mid in self._acknowledged if mid in self._tickets]:
            self._outbox.arrived(self._tickets.pop(mid))
            self._acknowledged.remove(mid)

    def _on_connect(self, client: Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self.lost = f"refused by the broker ({reason})"
            return
        self.accepted = True
        client.publish(self._config.status_topic, ONLINE, qos=1, retain=True)

    def _on_disconnect(self, client: Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if self.accepted:
            self.lost = f"connection lost ({reason})"

    def _on_publish(self, client: Client, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        self._acknowledged.append(mid)


def require_paho() -> None:
    """Refuses to go on without paho-mqtt.

    Raises:
        SettingsError: It is not installed, or older than version 2.
    """
    try:
        from paho.mqtt.enums import CallbackAPIVersion  # noqa: F401
    except ImportError:
        raise SettingsError("--mqtt needs paho-mqtt 2: pip install 'kanoclip-edge[mqtt]'") from None


def _tls(config: MqttConfig) -> ssl.SSLContext:
    """The trust and the identity that a configuration asks for; host names are always checked.

    Raises:
        SettingsError: A file cannot be read as what it should be.
    """
    try:
        check_regular(config.ca)
        context = ssl.create_default_context(cafile=str(config.ca) if config.ca is not None else None)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"--mqtt-ca {config.ca}: no certificates in PEM form ({one_line(error)})") from None
    if config.cert is not None:
        try:
            check_regular(config.cert, config.key)
            context.load_cert_chain(config.cert, config.key, no_password)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"--mqtt-cert {config.cert}: no certificate with its key in PEM form ({one_line(error)})"
            ) from None
    return context
