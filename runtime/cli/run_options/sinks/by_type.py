"""The types of `[[sink]]`."""

from __future__ import annotations

from kanoclip.runtime.cli.run_options.sinks.events import EventOptions, MqttOptions, SnapshotOptions, WebhookOptions
from kanoclip.runtime.cli.run_options.sinks.files import ImagesOptions, JsonlOptions, VideoOptions

SinkOptions = VideoOptions | ImagesOptions | JsonlOptions | EventOptions
SINKS: dict[str, type[SinkOptions]] = {
    "video": VideoOptions,
    "images": ImagesOptions,
    "jsonl": JsonlOptions,
    "snapshots": SnapshotOptions,
    "mqtt": MqttOptions,
    "webhook": WebhookOptions,
}
"""By `type` in `[[sink]]`."""


def type_of(sink: SinkOptions) -> str:
    """Its `type`."""
    return next(name for name, group in SINKS.items() if isinstance(sink, group))
