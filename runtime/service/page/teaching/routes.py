"""What a browser asks for to teach: learn, label, undo, save. One request after the other, whoever asks."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kanoclip.runtime.bundle.bundle import SUFFIX
from kanoclip.runtime.detect.learning.teaching.corrections import digest_of
from kanoclip.runtime.detect.reference.memory import Label
from kanoclip.runtime.errors import KanoclipError, SettingsError, printable
from kanoclip.runtime.service.page.feed.facts import Facts
from kanoclip.runtime.service.page.gallery import Gallery
from kanoclip.runtime.service.page.requests import BadRequestError, values_of, who
from kanoclip.runtime.service.page.teaching.labels import LabelledSet
from kanoclip.runtime.service.page.teaching.view import details
from kanoclip.runtime.types import Image

log = logging.getLogger(__name__)

T = TypeVar("T")
MOST_FRAMES = 10_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class GoneError(Exception):
    """A frame that is no longer held."""


class Teaching:
    """Answers browsers that teach.

    What costs inferences or files runs in one thread of its own: of two browsers at once each gets its own outcome, and
    neither the stream nor those that only watch wait for it.

    Args:
        facts: The stream.
        gallery: The last anomalies.
        pool: Takes corrections; one thread.
        labels: Where labelled frames are saved; None for nowhere.
    """

    def __init__(self, facts: Facts, gallery: Gallery, pool: Executor, labels: LabelledSet | None) -> None:
        self._facts, self._gallery, self._pool, self._labels = facts, gallery, pool, labels

    def routes(self) -> list[Route]:
        """Where it answers."""
        return [
            Route("/api/teach", self.read, methods=["GET"]),
            Route("/api/teach/learn", self.learn, methods=["POST"]),
            Route("/api/teach/cancel", self.cancel, methods=["POST"]),
            Route("/api/teach/freeze", self.freeze, methods=["POST"]),
            Route("/api/teach/label", self.label, methods=["POST"]),
            Route("/api/teach/undo", self.undo, methods=["POST"]),
            Route("/api/teach/save", self.save, methods=["POST"]),
        ]

    async def read(self, request: Request) -> Response:
        """References, corrections and what can be done."""
        folder = None if self._labels is None else str(self._labels.folder)
        return JSONResponse(await self._apart(lambda: details(self._facts.control, folder)))

    async def learn(self, request: Request) -> Response:
        """Learns the class looked for from the next frames."""
        values = await values_of(request, {"frames", "good"})
        frames, good = values.get("frames"), values.get("good")
        if isinstance(frames, bool) or not isinstance(frames, int) or not 1 <= frames <= MOST_FRAMES:
            raise BadRequestError(f"frames must be a number from 1 to {MOST_FRAMES}")
        if not isinstance(good, bool):
            raise BadRequestError("good must be true or false")
        name, teacher = self._facts.control.state().class_name, self._facts.control.teacher
        await self._apart(lambda: teacher.lessons.begin(name, frames, good=good))
        log.info("learns %s from the next %d frames (%s)", name, frames, who(request))
        return self._answer("")

    async def cancel(self, request: Request) -> Response:
        """Learns nothing after all."""
        await values_of(request, set())
        state = await self._apart(self._facts.control.teacher.lessons.cancel)
        log.info("%s (%s)", state.message, who(request))
        return self._answer("")

    async def freeze(self, request: Request) -> Response:
        """Holds a frame that is shown, until another one is frozen."""
        values = await values_of(request, {"stream", "number"})
        stream, number = self._place(values)
        if not self._facts.hub.feed(stream).shown.freeze(number):
            raise GoneError(_GONE_BY)
        return JSONResponse({})

    async def label(self, request: Request) -> Response:
        """Takes "fine" or "bad" for a frame: `stream` and `number` of a live one, or `key` of one in the gallery."""
        values = await values_of(request, {"label", "stream", "number", "key"})
        try:
            label = Label(values.get("label"))
        except ValueError:
            raise BadRequestError("label must be fine or bad") from None
        key = values.get("key")
        if key is not None and not isinstance(key, str):
            raise BadRequestError("key must be an image's key")
        place = None if key is not None else self._place(values)
        text = await self._apart(lambda: self._labelled(label, place, key, who(request)))
        return self._answer(text)

    async def undo(self, request: Request) -> Response:
        """Takes the last step back."""
        await values_of(request, set())
        text = await self._apart(lambda: self._undone(who(request)))
        return self._answer(text)

    async def save(self, request: Request) -> Response:
        """Writes what was taught into the bundle; into a copy, by its name, where the bundle cannot be written."""
        values = await values_of(request, {"name"})
        name = values.get("name")
        output = None
        if name is not None:
            if not isinstance(name, str) or _NAME.fullmatch(name.removesuffix(SUFFIX)) is None:
                raise BadRequestError("a name has letters, digits, '.', '_' and '-', and begins with one of the first")
            output = Path.cwd() / f"{name.removesuffix(SUFFIX)}{SUFFIX}"
        text = await self._apart(lambda: self._saved(output, who(request)))
        return self._answer(text)

    async def _apart(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _place(self, values: dict[str, Any]) -> tuple[str, int]:
        stream, number = values.get("stream"), values.get("number")
        sources = self._facts.control.state().sources
        if not isinstance(stream, str) or stream not in (sources if len(sources) > 1 else ("",)):
            raise BadRequestError("stream must be a source's name")
        if isinstance(number, bool) or not isinstance(number, int):
            raise BadRequestError("number must be a shown frame's")
        return stream, number

    def _labelled(self, label: Label, place: tuple[str, int] | None, key: str | None, by: str) -> str:
        original, name, class_name, about = self._shown(*place) if place is not None else self._in_gallery(str(key))
        control = self._facts.control
        teacher = control.teacher
        image = original if not isinstance(original, bytes) else _decoded(original)
        frame = teacher.prepare(image, class_name)
        text, refused, old = "", None, teacher.memory(class_name)
        try:
            taught = teacher.correct(label, name, frame, class_name)
            text = taught.sentence()
            about |= {"score": taught.correction.before, "threshold": taught.correction.threshold}
        except SettingsError as error:
            said = () if old is None else [one.label for one in old.corrections if one.sha256 == digest_of(frame)]
            if old is not None and label not in said:  # it became a reference as fine: the set must not say otherwise
                raise
            refused = error  # no memory yet, or labelled so already: the label is worth saving all the same
        if self._labels is not None:
            try:
                path = self._labels.put(class_name, label, digest_of(frame), original, about)
                text = f"{text} Saved as {path.relative_to(self._labels.folder)} in {self._labels.folder}.".strip()
            except KanoclipError as error:
                text = f"{text} The frame is not in the labelled set: {error}.".strip()
        log.info("%s is labelled %s (%s)", printable(name), label.value, by)
        if refused is not None:
            raise SettingsError(f"{refused}. {text}" if text else str(refused)) from refused
        return text

    def _shown(self, stream: str, number: int) -> tuple[Image | bytes, str, str, dict[str, Any]]:
        """A live frame: the image, its name, class and record."""
        found = self._facts.hub.feed(stream).shown.get(number)
        if found is None:
            raise GoneError(_GONE_BY)
        frame, detection = found
        name = f"{frame.source}, frame {frame.index}"
        about = {"source": frame.source, "frame": frame.index, "captured_at": frame.captured_at}
        return frame.image, name, detection.class_name, about

    def _in_gallery(self, key: str) -> tuple[Image | bytes, str, str, dict[str, Any]]:
        record, data = self._gallery.record(key), self._gallery.original(key)
        if record is None or data is None:
            raise GoneError("this image is no longer in the gallery: take another one, or the live one")
        about = {"source": record["source"], "frame": record["frame"], "time": record["time"]}
        return data, f"{record['source']}, frame {record['frame']}", str(record["class"]), about

    def _undone(self, by: str) -> str:
        control = self._facts.control
        name, teacher = control.state().class_name, control.teacher
        what = teacher.last(name)
        gone = teacher.undo(name)
        text = f"Undone ({what}): {name} is scored as before it."
        if self._labels is not None and gone:
            try:
                self._labels.withdraw(name, [one.sha256 for one in gone])
            except KanoclipError as error:
                text += f" Its image stays in the labelled set: {error}."
        log.info("undone for %s: %s (%s)", name, printable(what), by)
        return text

    def _saved(self, output: Path | None, by: str) -> str:
        control = self._facts.control
        name, teacher = control.state().class_name, control.teacher
        place = teacher.save(name, output)
        log.info("the memory of %s is saved in %s (%s)", name, place, by)
        if teacher.copy_of(name) == place:
            return f"Saved in {place}. Start with it: kanoclip-run --bundle '{place}' and the other options as now."
        return f"Saved in {place}: the next start has it."

    def _answer(self, text: str) -> Response:
        self._facts.changes += 1
        return JSONResponse({"state": self._facts.state(), "text": text})


_GONE_BY = "that frame has gone by: freeze the image first, or take it from the gallery"


def _decoded(data: bytes) -> Image:
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if found is None:
        raise GoneError("this image is damaged: take another one")
    return np.asarray(found, np.uint8)


async def gone(request: Request, error: Exception) -> Response:
    """The answer for a frame that is no longer held."""
    return JSONResponse({"error": str(error)}, 410)
