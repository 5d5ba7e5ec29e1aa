"""Which address to post events to, and what."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from kanoclip.runtime.errors import SettingsError
from kanoclip.runtime.sinks.events.events import Events

TOKEN_VARIABLE, SECRET_VARIABLE = "KANOCLIP_WEBHOOK_TOKEN", "KANOCLIP_WEBHOOK_SECRET"
QUEUE = 1000
QUEUE_BYTES = 64 << 20
DEADLINE_S = 3600.0


class Picture(str, Enum):
    """What goes along with the record."""

    NONE = "none"
    PLAIN = "plain"
    """The frame alone."""
    ANNOTATED = "annotated"
    """With heat map, regions and verdict."""


@dataclass(frozen=True, slots=True)
class WebhookConfig:
    """A receiver, and what to send it. Made by `parse`.

    Attributes:
        url: Without user and password. Its path may be a secret: only `shown` may be shown.
        authorization: The header's value; None for none.
        secret: Key of the signature; None for none.
        ca: PEM file of the authorities to trust; None for the system's.
        events: What to send.
        picture: What goes along.
        queue: Messages held while nobody takes them, at most.
        queue_bytes: Their bytes, at most.
        deadline_s: Seconds after which a message that nobody took is given up.
    """

    url: str = field(repr=False)
    authorization: str | None = field(default=None, repr=False)
    secret: bytes | None = field(default=None, repr=False)
    ca: Path | None = None
    events: Events = Events.ANOMALIES
    picture: Picture = Picture.NONE
    queue: int = QUEUE
    queue_bytes: int = QUEUE_BYTES
    deadline_s: float = DEADLINE_S

    @classmethod
    def parse(
        cls,
        url: str,
        *,
        ca: Path | None = None,
        events: Events = Events.ANOMALIES,
        picture: Picture = Picture.NONE,
        queue: int = QUEUE,
        deadline_s: float = DEADLINE_S,
        environment: Mapping[str, str] = os.environ,
    ) -> WebhookConfig:
        """Reads a receiver's URL; token and secret come from the environment.

        Raises:
            SettingsError: It is no such URL, or two ways to log in are given. The message holds no credentials.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not host or re.search(r"[\s\x00-\x1f]", url):
            raise SettingsError("--webhook: it must be http[s]://[USER:PASSWORD@]HOST[:PORT]/PATH")
        if ca is not None and parts.scheme != "https":
            raise SettingsError("--webhook-ca is for https:// only")
        token, authorization = environment.get(TOKEN_VARIABLE), None
        if parts.username is not None:
            if token:
                raise SettingsError(f"--webhook: give either USER:PASSWORD in the URL or {TOKEN_VARIABLE}")
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = f"Basic {base64.b64encode(login.encode()).decode('ascii')}"
        elif token:
            if re.fullmatch(r"[\x21-\x7e]+", token) is None:
                raise SettingsError(f"{TOKEN_VARIABLE}: a token is printable ASCII without spaces")
            authorization = f"Bearer {token}"
        secret = environment.get(SECRET_VARIABLE)
        name = f"[{host}]" if ":" in host else host
        netloc = name if port is None else f"{name}:{port}"
        return cls(
            url=urlunsplit((parts.scheme, netloc, parts.path or "/", parts.query, "")),
            authorization=authorization,
            secret=secret.encode() if secret else None,
            ca=ca,
            events=events,
            picture=picture,
            queue=queue,
            deadline_s=deadline_s,
        )

    @property
    def shown(self) -> str:
        """The receiver without what may be secret: with chat services the path is the password."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}/..."
