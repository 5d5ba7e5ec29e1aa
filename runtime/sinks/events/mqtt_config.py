"""Which MQTT broker to tell, and what."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kanoclip.runtime.errors import SettingsError
from kanoclip.runtime.sinks.events.events import Events

USER_VARIABLE, PASSWORD_VARIABLE = "KANOCLIP_MQTT_USER", "KANOCLIP_MQTT_PASSWORD"
PORTS = {"mqtt": 1883, "mqtts": 8883}
QUEUE = 10_000
QUEUE_BYTES = 64 << 20
_FORM = "mqtt[s]://[USER:PASSWORD@]HOST[:PORT]/TOPIC"


@dataclass(frozen=True, slots=True)
class MqttConfig:
    """A broker, and what to send it. Made by `parse`.

    Attributes:
        host: Name or address.
        port: TCP port.
        topic: Where events go; `status_topic` is below it.
        tls: Whether the connection is encrypted, and the broker's certificate checked.
        user: Name to log in with; None for nobody.
        password: Never shown.
        ca: PEM file of the authorities to trust; None for the system's.
        cert: PEM file of our own certificate, for brokers that want one.
        key: Its key; None where it is in the same file.
        client_id: What we call ourselves; the same after a restart.
        events: What to send.
        queue: Messages held while the broker is away, at most.
        queue_bytes: Their bytes, at most.
    """

    host: str
    port: int
    topic: str
    tls: bool
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    client_id: str = ""
    events: Events = Events.ANOMALIES
    queue: int = QUEUE
    queue_bytes: int = QUEUE_BYTES

    @classmethod
    def parse(
        cls,
        url: str,
        *,
        ca: Path | None = None,
        cert: Path | None = None,
        key: Path | None = None,
        events: Events = Events.ANOMALIES,
        queue: int = QUEUE,
        environment: Mapping[str, str] = os.environ,
    ) -> MqttConfig:
        """Reads a broker's URL; user and password may stand in the environment instead.

        Raises:
            SettingsError: It is no such URL, or certificates are given for a connection without TLS. The message holds
                no credentials.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise SettingsError(f"--mqtt: {_reason(error)}; it must be {_FORM}") from None
        topic = unquote(parts.path.strip("/"))
        # A password with a character that ends it early would become part of the topic, and be shown.
        if parts.scheme not in PORTS or not host or not topic or re.search(r"[?#]", url) or "@" in parts.path:
            raise SettingsError(
                f"--mqtt: it must be {_FORM}, such as mqtt://192.168.1.5/line3/camera1; write @ / ? # in a password as "
                "%40 %2F %3F %23"
            )
        if re.search(r"[+#\0]", topic) or len(topic.encode()) > 60_000:
            raise SettingsError("--mqtt: a topic to publish to must not hold the characters + and #")
        tls = parts.scheme == "mqtts"
        if not tls and (ca or cert or key):
            raise SettingsError("--mqtt-ca, --mqtt-cert and --mqtt-key are for mqtts:// only")
        if key is not None and cert is None:
            raise SettingsError("--mqtt-key is given without its --mqtt-cert")
        user = unquote(parts.username) if parts.username else environment.get(USER_VARIABLE) or None
        password = unquote(parts.password) if parts.password else environment.get(PASSWORD_VARIABLE) or None
        if password is not None and user is None:
            raise SettingsError(f"--mqtt: a password without a user: give USER in the URL or in {USER_VARIABLE}")
        return cls(
            host=host,
            port=port or PORTS[parts.scheme],
            topic=topic,
            tls=tls,
            user=user,
            password=password,
            ca=ca,
            cert=cert,
            key=key,
            client_id=_client_id(topic),
            events=events,
            queue=queue,
        )

    @property
    def status_topic(self) -> str:
        """Where `online` and `offline` stand."""
        return f"{self.topic}/status"

    @property
    def shown(self) -> str:
        """The broker without credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}/{self.topic}"


def _reason(error: ValueError) -> str:
    """Why a URL cannot be split. The library's words may quote the part at fault, which may be the password."""
    return "the port is no number from 0 to 65535" if "ort" in str(error) else "it is no URL"


def _client_id(topic: str) -> str:
    """A name for the broker: one for each machine and topic. A broker sends off the first of two with the same."""
    return re.sub(r"[^0-9A-Za-z]+", "-", f"kanoclip-{socket.gethostname()}-{topic}")[:128]
