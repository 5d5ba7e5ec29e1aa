"""Results as HTTP POST requests: to a receiver that may be away, slow or in a bad mood."""

from __future__ import annotations

import hashlib
import hmac
import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from http.client import responses
from typing import TYPE_CHECKING

from kanoclip.runtime.errors import SettingsError, SinkError, one_line
from kanoclip.runtime.sinks.draw.draw import annotate
from kanoclip.runtime.sinks.draw.encode import encode_jpeg
from kanoclip.runtime.sinks.draw.heat_map import Canvas
from kanoclip.runtime.sinks.events.outbox import OutboxSink, record_bytes
from kanoclip.runtime.sinks.events.webhook_config import Picture, WebhookConfig
from kanoclip.runtime.system.backoff import Backoff
from kanoclip.runtime.system.files.regular import check_regular
from kanoclip.runtime.types import Detection, Frame, Image

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S = 5.0, 10.0
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 60.0
"""Pause before a message is sent again; it doubles with each try up to the last."""
LONGEST_RETRY_AFTER_S = 600.0
"""A receiver may ask for a longer pause (Retry-After), up to this."""
CLOSE_GRACE_S = 3.0
"""How long the end of a run waits for the receiver to take what is left."""
IMAGE_SIDE, IMAGE_QUALITY = 1280, 85
_SHORT_ANSWER = 4096
_RETRIED = frozenset({408, 425, 429})
"""Refusals of the moment. Others of the 400s stand, whatever the number of tries."""


@dataclass(frozen=True, slots=True)
class _Message:
    """What is to be posted.

    Attributes:
        number: The same in each try, so that a receiver can tell a repetition.
        body: All of it.
        content_type: Of the body.
        expires_at: When it is given up, on `time.monotonic`'s clock.
    """

    number: str
    body: bytes
    content_type: str
    expires_at: float

    def __len__(self) -> int:
        return len(self.body)


class WebhookSink(OutboxSink[_Message]):
    """Posts events as JSON records, one after the other, each until it is taken, refused or too old.

    The body is the record (`application/json`), or with an image a form of two parts (`multipart/form-data`):
    `record`, and `picture`, a JPEG. Taken is what is answered with 2xx. A refused connection, an answer that does not
    come, 5xx, 408, 425 and 429 are tried again; another answer is a refusal, and the message is dropped. Redirections
    are not followed: they are refusals.

    With a secret, `X-Kanoclip-Signature: sha256=HEX` is the HMAC-SHA256 of the value of `X-Kanoclip-Timestamp` (Unix
    time of the try), a dot and the body. `X-Kanoclip-Delivery` is the message's number, the same in each try.

    Args:
        config: Where to, and what.
        untrained: The bundle has seeded weights: every annotated image says so.
        notify: Takes a message when messages no longer arrive, and one when they do again.

    Raises:
        SettingsError: urllib3 is not installed, or the certificates cannot be read.
    """

    name = "webhook"

    def __init__(self, config: WebhookConfig, *, untrained: bool, notify: Callable[[str], None] = log.warning) -> None:
        require_urllib3()
        import urllib3

        super().__init__(
            f"webhook {config.shown}",
            notify,
            events=config.events,
            queue=config.queue,
            queue_bytes=config.queue_bytes,
            slow="the receiver is slower than events come",
            meanwhile=f"up to {config.queue} messages wait, and the oldest are dropped",
        )
        self.shows = config.picture is not Picture.NONE
        self._config = config
        self._untrained = untrained
        self._canvas = Canvas()
        try:
            check_regular(config.ca)
        except OSError as error:
            raise SettingsError(f"--webhook-ca {config.ca}: {error.strerror}") from None
        self._pool = urllib3.PoolManager(
            num_pools=1,
            retries=False,
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=ANSWER_TIMEOUT_S),
            cert_reqs="CERT_REQUIRED",
            ca_certs=str(config.ca) if config.ca is not None else None,
        )
        self._backoff = Backoff(FIRST_RETRY_S, LAST_RETRY_S, scatter=0.0)
        self._pauses = self._backoff.waits()
        self._news = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="kanoclip-webhook-sender", daemon=True)
        self._thread.start()

    def write(self, frame: Frame, detection: Detection) -> None:
        """Queues a message, if the result is one of the events wanted.

        Raises:
            SinkError: The image cannot be encoded.
        """
        if not self._filter.takes(frame, detection):
            return
        self._keep(self._message(frame, detection))
        self._news.set()

    def close(self) -> None:
        """Sends what is left, for up to `CLOSE_GRACE_S`.

        Raises:
            SinkError: Messages are left that nobody took; they count as dropped.
        """
        deadline = time.monotonic() + CLOSE_GRACE_S
        self._closing.set()
        self._news.set()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        left = self._give_up_rest()  # a request under way is not waited for: it may take ANSWER_TIMEOUT_S
        if left:
            raise SinkError(f"{self._config.shown}: {left} messages were not taken by the receiver before the end")

    def _message(self, frame: Frame, detection: Detection) -> _Message:
        from urllib3.filepost import encode_multipart_formdata

        number = str(uuid.uuid4())
        expires_at = time.monotonic() + self._config.deadline_s
        body = record_bytes(frame, detection)
        image: Image | None = None
        if self._config.picture is Picture.PLAIN:
            image = frame.image
        elif self._config.picture is Picture.ANNOTATED:
            image = annotate(frame.image, detection, untrained=self._untrained, canvas=self._canvas)
        if image is None:
            return _Message(number, body, "application/json", expires_at)
        jpeg = encode_jpeg(image, IMAGE_QUALITY, IMAGE_SIDE)
        body, content_type = encode_multipart_formdata(
            [
                ("record", ("record.json", body, "application/json")),
                ("picture", (f"{frame.index:08d}.jpg", jpeg, "image/jpeg")),
            ]
        )
        return _Message(number, body, content_type, expires_at)

    def _serve(self) -> None:
        """Thread: posts one message after the other."""
        while True:
            item = self._outbox.take()
            if item is None:
                self._slow.end(self._outbox.dropped)
                if self._closing.is_set():
                    break
                self._news.wait()
                self._news.clear()
                continue
            if pause := self._send(*item):
                if self._closing.is_set():
                    break
                self._closing.wait(pause)  # at the end what is left is tried once more
        self._pool.clear()

    def _send(self, ticket: int, message: _Message) -> float:
        """Posts a message that was taken from the outbox; returns how long to wait before it is tried again, or 0."""
        if time.monotonic() >= message.expires_at:
            self._outbox.give_up(ticket)
            return 0.0
        requested: float | None = None
        try:
            answer = self._post(message)
        except Exception as error:
            why, again = _words(error), True
        else:
            if 200 <= answer.status < 300:
                self._outbox.arrived(ticket)
                self._pauses = self._backoff.waits()
                self._outage.end(self._outbox.dropped)
                return 0.0
            why = f"answered {answer.status} {responses.get(answer.status, '')}".strip()
            again = answer.status >= 500 or answer.status in _RETRIED
            requested = _retry_after(answer)
        before = self._outbox.dropped
        if not again:
            self._outbox.give_up(ticket)
            self._outage.begin(f"{why}, and the message was dropped", before)
            return 0.0
        self._outbox.put_back()
        self._outage.begin(why, before)
        own = next(self._pauses)
        return max(own if requested is None else min(requested, LONGEST_RETRY_AFTER_S), 0.05)

    def _post(self, message: _Message) -> BaseHTTPResponse:
        """Posts a message and returns the answer's head.

        Raises:
            Exception: One of urllib3's: there was no answer.
        """
        headers = {
            "Content-Type": message.content_type,
            "User-Agent": "kanoclip-edge",
            "X-Kanoclip-Delivery": message.number,
        }
        if self._config.authorization is not None:
            headers["Authorization"] = self._config.authorization
        if self._config.secret is not None:
            headers["X-Kanoclip-Timestamp"] = stamp = str(int(time.time()))
            digest = hmac.new(self._config.secret, stamp.encode("ascii") + b"." + message.body, hashlib.sha256)
            headers["X-Kanoclip-Signature"] = f"sha256={digest.hexdigest()}"
        answer = self._pool.request(
            "POST", self._config.url, body=message.body, headers=headers, redirect=False, preload_content=False
        )
        if answer.length_remaining is not None and answer.length_remaining <= _SHORT_ANSWER:
            answer.drain_conn()  # so that the connection can be used again
        else:
            answer.close()  # its text does not matter, and might never end
        return answer


def require_urllib3() -> None:
    """Refuses to go on without urllib3.

    Raises:
        SettingsError: It is not installed, or older than version 2.
    """
    try:
        from urllib3 import BaseHTTPResponse  # noqa: F401
    except ImportError:
        raise SettingsError("--webhook needs urllib3 2: pip install 'kanoclip-edge[webhook]'") from None


def _words(error: Exception) -> str:
    """Why there was no answer."""
    from urllib3 import exceptions

    if isinstance(error, exceptions.ReadTimeoutError):
        return f"no answer for {ANSWER_TIMEOUT_S:g} s"
    # A refused connection is one of those as well, to urllib3.
    if isinstance(error, exceptions.ConnectTimeoutError) and not isinstance(error, exceptions.NewConnectionError):
        return f"no connection within {CONNECT_TIMEOUT_S:g} s"
    cause: object = error
    while isinstance(cause, Exception) and cause.__cause__ is not None:
        cause = cause.__cause__
    return f"{type(error).__name__} ({one_line(cause)})"


def _retry_after(answer: BaseHTTPResponse) -> float | None:
    """For how many seconds the receiver asked to be left alone; None where it did not say."""
    from urllib3 import exceptions
    from urllib3.util import Retry

    try:
        return Retry().get_retry_after(answer)
    except (exceptions.InvalidHeader, ValueError, OverflowError):
        return None
