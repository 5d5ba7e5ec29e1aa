"""The live connection: one update at a time, and the next one when the browser has shown the last.

An update is one binary message: the header's length (4 bytes, little-endian), the header (JSON), the image (JPEG)
and its map (8-bit PNG). The browser answers each with what it wants next, such as `{"stream": "", "pictures": true,
"span": 60}`. So there is at most one update on its way to each browser, and what it shows is new however slow its
network is. One that does not answer costs one message in a socket's buffer until `ANSWER_S` is over.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.service.page.feed.facts import Facts
from kanoclip.runtime.service.page.feed.hub import MAX_FPS, EncodedImage
from kanoclip.runtime.service.page.feed.score_history import SPANS_S
from kanoclip.runtime.service.page.gallery import Gallery

log = logging.getLogger(__name__)

MAX_WATCHERS = 8
ANSWER_S = 30.0
"""Longest that a browser may take for an update."""
QUIET_S = 0.25
"""How often a browser hears of the stream although there is no new image."""
POLL_S = 0.02
TOO_MANY = 4008
NO_ANSWER = 4009


@dataclass(frozen=True, slots=True)
class Request:
    """What a browser requests next.

    Attributes:
        stream: The source to look at, as `Frame.stream`.
        images: Whether anybody looks: a hidden tab wants figures only.
        span: Seconds of scores, one of `SPANS_S`.
    """

    stream: str = ""
    images: bool = True
    span: int = SPANS_S[0]

    @classmethod
    def parse(cls, text: str, streams: Sequence[str]) -> Request:
        """Reads a browser's answer.

        Args:
            text: JSON.
            streams: What there is to look at; the first of them for a browser that does not know any yet.

        Raises:
            ValueError: It is none.
        """
        try:
            values = json.loads(text)
        except RecursionError as error:
            raise ValueError("nested too deep") from error
        if not isinstance(values, dict):
            raise ValueError("not an object")
        stream, images, span = values.get("stream"), values.get("pictures"), values.get("span")
        if not isinstance(stream, str) or not isinstance(images, bool) or span not in SPANS_S:
            raise ValueError("not a request")
        return cls(stream if stream in streams else streams[0], images, int(span))


class Watcher:
    """What one browser has got, and so what is new to it.

    Args:
        facts: What there is to tell.
        gallery: Of which it learns when it has changed.
        clock: Monotonic seconds, the hub's.
    """

    def __init__(self, facts: Facts, gallery: Gallery, clock: Callable[[], float] = time.monotonic) -> None:
        self._facts, self._gallery, self._clock = facts, gallery, clock
        self._request: Request | None = None
        self._shown = self._next_bucket = 0
        self._health_at = float("-inf")

    def fresh(self, request: Request) -> bool:
        """Whether there is a new image for it."""
        shown = self._shown if self._request is not None and self._request.stream == request.stream else 0
        return request.images and self._facts.hub.feed(request.stream).fresh(shown)

    def update(self, request: Request) -> bytes:
        """The next message; takes as long as it takes to encode an image."""
        facts = self._facts
        if self._request is None or self._request.stream != request.stream:
            self._shown = self._next_bucket = 0
        elif self._request.span != request.span:
            self._next_bucket = 0
        self._request = request
        state, progress = facts.control.state(), facts.control.progress()
        feed = facts.hub.feed(request.stream)
        rows = feed.scores(request.span, self._next_bucket)
        head: dict[str, Any] = {
            "clock": self._clock(),
            "state": facts.state(),
            "sources": facts.sources(state, progress),
            "scores": {"span": request.span, "from": self._next_bucket, "rows": rows},
            "gallery": self._gallery.revision,
        }
        if rows:
            self._next_bucket = rows[-1][0]  # it may still grow, and is sent again
        found_at, health = facts.health()
        if found_at > self._health_at:
            self._health_at, head["health"] = found_at, health
        image = self._image(request)
        if image is not None:
            self._shown = image.number
            head["picture"] = image.head | {"stream": request.stream, "bytes": len(image.jpeg)}
            return _message(head, image.jpeg, image.map_png)
        return _message(head)

    def _image(self, request: Request) -> EncodedImage | None:
        feed = self._facts.hub.feed(request.stream)
        if not request.images or not feed.fresh(self._shown):
            return None
        try:
            image = feed.image()
        except SinkError:
            return None
        return image if image is not None and image.number > self._shown else None


class Live:
    """Tells every browser that watches.

    Args:
        facts: What there is to tell.
        gallery: The last anomalies.
        pool: Encodes images; one thread, so that the browsers' images cost no more than one core.
    """

    def __init__(self, facts: Facts, gallery: Gallery, pool: Executor) -> None:
        self._facts, self._gallery, self._pool = facts, gallery, pool

    async def serve(self, websocket: WebSocket) -> None:
        """Serves one browser until it goes."""
        await websocket.accept()
        if self._facts.watching >= MAX_WATCHERS:
            await websocket.close(TOO_MANY, f"{MAX_WATCHERS} browsers are watching already")
            return
        self._facts.watching += 1
        try:
            await self._talk(websocket)
        except WebSocketDisconnect:
            pass
        except asyncio.TimeoutError:
            await websocket.close(NO_ANSWER, "no answer")
        except ValueError:
            await websocket.close(1003, "not understood")
        finally:
            self._facts.watching -= 1

    async def _talk(self, websocket: WebSocket) -> None:
        watcher = Watcher(self._facts, self._gallery)
        loop = asyncio.get_running_loop()
        sent_at = float("-inf")
        while True:
            message = await asyncio.wait_for(websocket.receive(), ANSWER_S)
            if message["type"] == "websocket.disconnect":
                return
            request = Request.parse(message.get("text") or "", self._streams())  # a binary one is no request
            await asyncio.sleep(max(0.0, sent_at + 1 / MAX_FPS - loop.time()))
            quiet_until = sent_at + QUIET_S
            while loop.time() < quiet_until and not watcher.fresh(request):
                await asyncio.sleep(POLL_S)
            update = await loop.run_in_executor(self._pool, watcher.update, request)
            sent_at = loop.time()
            await asyncio.wait_for(websocket.send_bytes(update), ANSWER_S)

    def _streams(self) -> Sequence[str]:
        return self._facts.control.state().streams


def _message(head: dict[str, Any], *parts: bytes) -> bytes:
    text = json.dumps(head, allow_nan=False, separators=(",", ":")).encode()
    return b"".join((len(text).to_bytes(4, "little"), text, *parts))
