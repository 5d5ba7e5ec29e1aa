"""Sources that join the run, leave it, or get another name on the page."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kanoclip.runtime.service.page.feed.facts import Facts
from kanoclip.runtime.service.page.requests import BadRequestError, values_of, who
from kanoclip.runtime.service.page.tools.allowed import AllowedSources
from kanoclip.runtime.sources import open_stream
from kanoclip.runtime.sources.several import NamedSource, distinct

log = logging.getLogger(__name__)

LONGEST_NAME = 60


class Sources:
    """Answers requests for other sources.

    A name that is given with a source is its name from then on: in lines, events and metrics too. A label that a source
    gets later is for the page alone, since a name that changes would tear its lines apart.

    Args:
        facts: The stream.
        allowed: What may be added.
    """

    def __init__(self, facts: Facts, allowed: AllowedSources) -> None:
        self._facts, self._allowed = facts, allowed
        self._adding = asyncio.Lock()

    async def add(self, request: Request) -> Response:
        """Opens a source and takes it in; one at a time, since a camera that is away holds a thread for seconds."""
        values = await values_of(request, {"source", "name"})
        spec, name = _text(values, "source"), _name(values.get("name") or "")
        camera = self._allowed.check(spec)
        if self._adding.locked():
            raise BadRequestError("another source is being opened: wait for that")
        async with self._adding:
            where = await asyncio.get_running_loop().run_in_executor(None, self._join, spec, camera, name)
        self._facts.changes += 1
        log.info("%s was added (%s)", where, who(request))
        return JSONResponse({"state": self._facts.state(), "name": where})

    async def remove(self, request: Request) -> Response:
        """Takes a source out."""
        name = _text(await values_of(request, {"name"}), "name")
        self._facts.control.remove_source(name)
        self._facts.labels.pop(name, None)
        self._facts.changes += 1
        log.info("%s was removed (%s)", name, who(request))
        return JSONResponse({"state": self._facts.state()})

    async def label(self, request: Request) -> Response:
        """Shows a source under another name on the page; an empty one takes it back."""
        values = await values_of(request, {"name", "label"})
        name, label = _text(values, "name"), _name(values.get("label") or "")
        if name not in self._facts.control.state().sources:
            raise BadRequestError("there is no such source")
        self._facts.labels.pop(name, None)
        if label:
            self._facts.labels[name] = label
        self._facts.changes += 1
        return JSONResponse({"state": self._facts.state()})

    def _join(self, spec: str, camera: bool, name: str) -> str:
        control = self._facts.control
        opened = open_stream(spec, camera=camera)
        try:
            there = control.state().sources
            chosen = name or distinct([*there, opened.name])[-1]
            source = NamedSource(opened, chosen)
            control.add_source(source)
        except BaseException:
            opened.close()
            raise
        return chosen


def _text(values: dict[str, Any], key: str) -> str:
    value = values.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BadRequestError(f"{key} must be a text")
    return value.strip()


def _name(value: Any) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_NAME or not value.isprintable():
        raise BadRequestError(f"a name has at most {LONGEST_NAME} visible characters")
    return value.strip()
