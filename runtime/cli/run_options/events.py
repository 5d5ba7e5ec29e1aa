"""Whom `kanoclip-run` tells of anomalies: its options, and the sinks that they open."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from kanoclip.runtime.cli.options import grouped, size
from kanoclip.runtime.cli.run_options.outputs import open_sink
from kanoclip.runtime.sinks import Sink, SinkFactory
from kanoclip.runtime.sinks.events.events import Events
from kanoclip.runtime.sinks.events.mqtt_config import PASSWORD_VARIABLE, QUEUE, USER_VARIABLE, MqttConfig
from kanoclip.runtime.sinks.events.webhook_config import (
    DEADLINE_S,
    SECRET_VARIABLE,
    TOKEN_VARIABLE,
    Picture,
    WebhookConfig,
)
from kanoclip.runtime.sinks.events.webhook_config import QUEUE as WEBHOOK_QUEUE

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Listeners:
    """Whom the user wants to be told of anomalies, and where they are kept."""

    snapshots: Path | None
    snapshots_on: str
    snapshots_max_bytes: int
    snapshots_max_count: int
    snapshots_interval: float
    mqtt: str | None
    mqtt_on: str
    mqtt_queue: int
    mqtt_ca: Path | None
    mqtt_cert: Path | None
    mqtt_key: Path | None
    webhook: str | None
    webhook_on: str
    webhook_picture: str
    webhook_queue: int
    webhook_deadline: float
    webhook_ca: Path | None

    @property
    def shows(self) -> bool:
        """Whether whole images are asked for."""
        sent = self.webhook is not None and self.webhook_picture != Picture.NONE.value
        return self.snapshots is not None or sent

    def makers(self, *, untrained: bool) -> list[tuple[str, bool, Callable[[], Sink]]]:
        """What opens each sink, with its name and whether it shows images; nothing is opened yet.

        Raises:
            SettingsError: An address or a file is no good, or a library is missing; the message names the flag and
                holds no credentials.
        """
        makers: list[tuple[str, bool, Callable[[], Sink]]] = []
        if self.snapshots is not None:
            from kanoclip.runtime.sinks.snapshots.sink import SnapshotConfig, SnapshotSink

            kept = SnapshotConfig(
                self.snapshots,
                Events(self.snapshots_on),
                self.snapshots_max_bytes,
                self.snapshots_max_count,
                self.snapshots_interval,
            )
            makers.append(("snapshots", True, lambda: SnapshotSink(kept, untrained=untrained)))
        if self.mqtt is not None:
            from kanoclip.runtime.sinks.events.mqtt import MqttSink, require_paho

            broker = MqttConfig.parse(
                self.mqtt,
                ca=self.mqtt_ca,
                cert=self.mqtt_cert,
                key=self.mqtt_key,
                events=Events(self.mqtt_on),
                queue=self.mqtt_queue,
            )
            require_paho()
            makers.append(("mqtt", False, lambda: MqttSink(broker)))
        if self.webhook is not None:
            from kanoclip.runtime.sinks.events.webhook import WebhookSink, require_urllib3

            receiver = WebhookConfig.parse(
                self.webhook,
                ca=self.webhook_ca,
                events=Events(self.webhook_on),
                picture=Picture(self.webhook_picture),
                queue=self.webhook_queue,
                deadline_s=self.webhook_deadline,
            )
            require_urllib3()
            shown = receiver.picture is not Picture.NONE
            makers.append(("webhook", shown, lambda: WebhookSink(receiver, untrained=untrained)))
        return makers

    def open(self, pending: ExitStack, *, endless: bool, untrained: bool) -> list[Sink | SinkFactory]:
        """Opens them; arguments as of `Outputs.open`."""
        return [open_sink(*one, pending=pending, endless=endless) for one in self.makers(untrained=untrained)]


_FILE = click.Path(path_type=Path)


def listener_options(command: _Command) -> _Command:
    """Adds who is told; the command gets it as `listeners`."""
    return grouped(
        "listeners",
        Listeners,
        "Events",
        click.option(
            "--snapshots",
            type=_FILE,
            metavar="FOLDER",
            help="Folder for anomalous frames: annotated image, image alone, JSON record; the oldest are deleted.",
        ),
        click.option(
            "--snapshots-on",
            type=click.Choice([Events.ANOMALIES.value, Events.ALARMS.value]),
            default=Events.ANOMALIES.value,
            show_default=True,
            help="Every anomalous frame, or only the one that raises the alarm.",
        ),
        click.option(
            "--snapshots-max-bytes",
            callback=size,
            default="1G",
            show_default=True,
            metavar="SIZE",
            help="Bytes of all snapshots.",
        ),
        click.option(
            "--snapshots-max-count",
            type=click.IntRange(min=1),
            default=1000,
            show_default=True,
            metavar="N",
            help="Snapshots kept.",
        ),
        click.option(
            "--snapshots-interval",
            type=click.FloatRange(min=0),
            default=1.0,
            show_default=True,
            metavar="SECONDS",
            help="Least time from one snapshot of a source to the next.",
        ),
        click.option(
            "--mqtt",
            envvar="KANOCLIP_MQTT",
            metavar="URL",
            help="Broker to tell of anomalies: mqtt[s]://[USER:PASSWORD@]HOST[:PORT]/TOPIC. User and password may "
            f"stand in {USER_VARIABLE} and {PASSWORD_VARIABLE}, the URL in KANOCLIP_MQTT.",
        ),
        click.option(
            "--mqtt-on",
            type=click.Choice([one.value for one in Events]),
            default=Events.ANOMALIES.value,
            show_default=True,
            help="What the broker is told: anomalous frames, alarms that are raised or cleared, or every frame.",
        ),
        click.option(
            "--mqtt-queue",
            type=click.IntRange(min=1),
            default=QUEUE,
            show_default=True,
            metavar="N",
            help="Messages kept while the broker is away.",
        ),
        click.option("--mqtt-ca", type=_FILE, metavar="FILE", help="Authorities to trust, PEM. Default: the system's."),
        click.option("--mqtt-cert", type=_FILE, metavar="FILE", help="Our own certificate, PEM."),
        click.option("--mqtt-key", type=_FILE, metavar="FILE", help="Its key, PEM."),
        click.option(
            "--webhook",
            envvar="KANOCLIP_WEBHOOK",
            metavar="URL",
            help=f"Address to POST anomalies to. A token may stand in {TOKEN_VARIABLE}, a key to sign with in "
            f"{SECRET_VARIABLE}, the address in KANOCLIP_WEBHOOK.",
        ),
        click.option(
            "--webhook-on",
            type=click.Choice([one.value for one in Events]),
            default=Events.ANOMALIES.value,
            show_default=True,
            help="What is posted, as of --mqtt-on.",
        ),
        click.option(
            "--webhook-picture",
            type=click.Choice([one.value for one in Picture]),
            default=Picture.NONE.value,
            show_default=True,
            help="What goes along with the record.",
        ),
        click.option(
            "--webhook-queue",
            type=click.IntRange(min=1),
            default=WEBHOOK_QUEUE,
            show_default=True,
            metavar="N",
            help="Events kept while nobody takes them.",
        ),
        click.option(
            "--webhook-deadline",
            type=click.FloatRange(min=0, min_open=True),
            default=DEADLINE_S,
            show_default=True,
            metavar="SECONDS",
            help="When an event that nobody took is given up.",
        ),
        click.option("--webhook-ca", type=_FILE, metavar="FILE", help="Authorities to trust, PEM."),
    )(command)
