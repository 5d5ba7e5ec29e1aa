"""Where `kanoclip-run` sends anomalies, and where it saves them: the options of these sinks."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kanoclip.runtime.cli.run_options.fields import option
from kanoclip.runtime.cli.run_options.kinds import Number, OneOf, PathName, Size
from kanoclip.runtime.cli.run_options.secrets import LoginName, Secret, SecretText, Url
from kanoclip.runtime.sinks import Sink
from kanoclip.runtime.sinks.events import mqtt_config, webhook_config
from kanoclip.runtime.sinks.events.events import Events
from kanoclip.runtime.sinks.events.mqtt_config import MqttConfig
from kanoclip.runtime.sinks.events.webhook_config import Picture, WebhookConfig

_EVENTS = OneOf(tuple(Events))
_PEM = PathName(beside=True)


@dataclass(frozen=True)
class SnapshotOptions:
    """Anomalous frames in a folder: `[[sink]]` of the type snapshots.

    Attributes:
        where: Names the option in messages: a line of the file, or the flag. The other sinks have it too.
    """

    path: Path | None = option(
        "--snapshots",
        PathName(),
        None,
        "Folder for anomalous frames: annotated image, image alone, JSON record; the oldest are deleted.",
        metavar="FOLDER",
    )
    on: Events = option(
        "--snapshots-on",
        OneOf((Events.ANOMALIES, Events.ALARMS)),
        Events.ANOMALIES,
        "Every anomalous frame, or only the one that raises the alarm.",
        show=True,
    )
    max_bytes: int = option(
        "--snapshots-max-bytes", Size(), 1 << 30, "Bytes of all snapshots.", metavar="SIZE", show=True
    )
    max_count: int = option(
        "--snapshots-max-count",
        Number(1, whole=True),
        1000,
        "Most snapshots that the folder holds.",
        metavar="N",
        show=True,
    )
    interval: float = option(
        "--snapshots-interval",
        Number(0),
        1.0,
        "Least time from one snapshot of a source to the next.",
        metavar="SECONDS",
        show=True,
    )
    where: str = field(default="", compare=False)

    @property
    def shows(self) -> bool:
        """Whether whole images are needed."""
        return True

    def maker(self, *, untrained: bool) -> Callable[[], Sink]:
        """What opens the sink; nothing is opened yet."""
        from kanoclip.runtime.sinks.snapshots.sink import SnapshotConfig, SnapshotSink

        assert self.path is not None
        config = SnapshotConfig(self.path, self.on, self.max_bytes, self.max_count, self.interval)
        return lambda: SnapshotSink(config, untrained=untrained)


@dataclass(frozen=True)
class MqttOptions:
    """A broker: `[[sink]]` of the type mqtt."""

    url: Secret | None = option(
        "--mqtt",
        Url("KANOCLIP_MQTT"),
        None,
        "Broker to send anomalies to: mqtt[s]://[USER:PASSWORD@]HOST[:PORT]/TOPIC. User and password may stand in "
        f"{mqtt_config.USER_VARIABLE} and {mqtt_config.PASSWORD_VARIABLE}, the URL in KANOCLIP_MQTT.",
        metavar="URL",
        envvar="KANOCLIP_MQTT",
    )
    user: Secret | None = option(None, LoginName(), None, f"Default: {mqtt_config.USER_VARIABLE}.")
    password: Secret | None = option(None, SecretText(), None, f"Default: {mqtt_config.PASSWORD_VARIABLE}.")
    on: Events = option(
        "--mqtt-on",
        _EVENTS,
        Events.ANOMALIES,
        "What the broker gets: anomalous frames, alarms that are raised or cleared, or every frame.",
        show=True,
    )
    queue: int = option(
        "--mqtt-queue",
        Number(1, whole=True),
        mqtt_config.QUEUE,
        "Messages that may wait while the broker is away.",
        metavar="N",
        show=True,
    )
    ca: Path | None = option(
        "--mqtt-ca", _PEM, None, "Authorities to trust, PEM. Default: the system's.", metavar="FILE"
    )
    cert: Path | None = option("--mqtt-cert", _PEM, None, "Our own certificate, PEM.", metavar="FILE")
    key: Path | None = option("--mqtt-key", _PEM, None, "Its key, PEM.", metavar="FILE")
    where: str = field(default="", compare=False)

    @property
    def shows(self) -> bool:
        """Whether whole images are needed."""
        return False

    def maker(self, *, untrained: bool) -> Callable[[], Sink]:
        """What opens the sink; nothing is opened yet.

        Raises:
            SettingsError: The address, a file or a secret is invalid, or a library is missing. The message holds no
                credentials.
        """
        from kanoclip.runtime.sinks.events.mqtt import MqttSink, require_paho

        assert self.url is not None
        broker = MqttConfig.parse(
            self.url.read(),
            ca=self.ca,
            cert=self.cert,
            key=self.key,
            events=self.on,
            queue=self.queue,
            environment=_environment(
                {mqtt_config.USER_VARIABLE: self.user, mqtt_config.PASSWORD_VARIABLE: self.password}
            ),
        )
        require_paho()
        return lambda: MqttSink(broker)


@dataclass(frozen=True)
class WebhookOptions:
    """An address that anomalies are posted to: `[[sink]]` of the type webhook."""

    url: Secret | None = option(
        "--webhook",
        Url("KANOCLIP_WEBHOOK", all_secret=True),
        None,
        f"Address to POST anomalies to. A token may stand in {webhook_config.TOKEN_VARIABLE}, a key to sign with in "
        f"{webhook_config.SECRET_VARIABLE}, the address in KANOCLIP_WEBHOOK.",
        metavar="URL",
        envvar="KANOCLIP_WEBHOOK",
    )
    token: Secret | None = option(None, SecretText(), None, f"Default: {webhook_config.TOKEN_VARIABLE}.")
    secret: Secret | None = option(None, SecretText(), None, f"Default: {webhook_config.SECRET_VARIABLE}.")
    on: Events = option("--webhook-on", _EVENTS, Events.ANOMALIES, "What is posted, as for --mqtt-on.", show=True)
    picture: Picture = option(
        "--webhook-picture", OneOf(tuple(Picture)), Picture.NONE, "The image that is sent with the record.", show=True
    )
    queue: int = option(
        "--webhook-queue",
        Number(1, whole=True),
        webhook_config.QUEUE,
        "Events that may wait while the receiver is away.",
        metavar="N",
        show=True,
    )
    deadline: float = option(
        "--webhook-deadline",
        Number(0, above=True),
        webhook_config.DEADLINE_S,
        "How long an event is retried before it is dropped.",
        metavar="SECONDS",
        show=True,
    )
    ca: Path | None = option("--webhook-ca", _PEM, None, "Authorities to trust, PEM.", metavar="FILE")
    where: str = field(default="", compare=False)

    @property
    def shows(self) -> bool:
        """Whether whole images are needed."""
        return self.picture is not Picture.NONE

    def maker(self, *, untrained: bool) -> Callable[[], Sink]:
        """What opens the sink; raises as `MqttOptions.maker` does."""
        from kanoclip.runtime.sinks.events.webhook import WebhookSink, require_urllib3

        assert self.url is not None
        receiver = WebhookConfig.parse(
            self.url.read(),
            ca=self.ca,
            events=self.on,
            picture=self.picture,
            queue=self.queue,
            deadline_s=self.deadline,
            environment=_environment(
                {webhook_config.TOKEN_VARIABLE: self.token, webhook_config.SECRET_VARIABLE: self.secret}
            ),
        )
        require_urllib3()
        return lambda: WebhookSink(receiver, untrained=untrained)


EventOptions = SnapshotOptions | MqttOptions | WebhookOptions


def _environment(given: dict[str, Secret | None]) -> dict[str, str]:
    """The environment, with what a file sets over it."""
    return {**os.environ, **{name: one.read() for name, one in given.items() if one is not None}}
