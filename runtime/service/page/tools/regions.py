"""The region of interest, drawn on the live image: where frames are scored, and what is ignored in them."""

from __future__ import annotations

import asyncio
import logging

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kanoclip.runtime.detect.settings.roi_file import region_in
from kanoclip.runtime.detect.settings.thresholds import UNKEPT
from kanoclip.runtime.service.page.feed.facts import Facts
from kanoclip.runtime.service.page.requests import BadRequestError, values_of, who

log = logging.getLogger(__name__)

MAX_REGION = 48 << 10
"""Bytes of a region that a browser sends: some 2,000 corners."""


class Regions:
    """Reads, changes and saves the region of the class looked for.

    Args:
        facts: The stream.
    """

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    async def read(self, request: Request) -> Response:
        """The polygons in use, in shares of the image."""
        region = self._facts.control.region()
        return JSONResponse(
            {"keep": [], "ignore": []} if region is None else {"keep": region.keep, "ignore": region.ignore}
        )

    async def choose(self, request: Request) -> Response:
        """Scores by other polygons from the next frame on; none at all stand for the whole image."""
        values = await values_of(request, {"class", "keep", "ignore"}, MAX_REGION)
        control, loop = self._facts.control, asyncio.get_running_loop()
        drawn_for, region = values.pop("class", None), None
        if drawn_for not in (None, control.state().class_name):
            raise BadRequestError("another class is looked for by now: draw its region anew")
        if values.get("keep") or values.get("ignore"):
            # Large ones take milliseconds to be checked, which other browsers do not wait for.
            region = await loop.run_in_executor(None, region_in, values | {"units": "relative"}, "the region drawn")
        await loop.run_in_executor(None, control.choose_region, region)
        self._facts.changes += 1
        count = 0 if region is None else len(region.keep) + len(region.ignore)
        log.info("region of %s: %d polygons (%s)", control.state().class_name, count, who(request))
        return self._answer()

    async def save(self, request: Request) -> Response:
        """Saves the polygons in use."""
        await values_of(request, set())
        control = self._facts.control
        where = await asyncio.get_running_loop().run_in_executor(None, control.save_region)
        self._facts.changes += 1
        log.info("the region of %s was saved in %s (%s)", control.state().class_name, where, who(request))
        return self._answer(saved=where)

    def _answer(self, **more: str) -> Response:
        state = self._facts.control.state()
        note = "" if state.promised else UNKEPT % state.class_name
        return JSONResponse({"state": self._facts.state(), "note": note, **more})
