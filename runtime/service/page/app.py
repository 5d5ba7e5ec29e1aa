"""What can be asked of the page: its files, the live connection, changes, the gallery, health and metrics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from kanoclip.runtime.errors import KanoclipError
from kanoclip.runtime.service.health import Health, HealthReport
from kanoclip.runtime.service.page.auth.access import Access
from kanoclip.runtime.service.page.auth.guard import Guard, cookie_name
from kanoclip.runtime.service.page.auth.login import Login
from kanoclip.runtime.service.page.feed.facts import Facts
from kanoclip.runtime.service.page.feed.live import Live
from kanoclip.runtime.service.page.gallery import Gallery
from kanoclip.runtime.service.page.options import PageOptions
from kanoclip.runtime.service.page.requests import BadRequestError, MissingError, values_of, who
from kanoclip.runtime.service.page.teaching.labels import LabelledSet
from kanoclip.runtime.service.page.teaching.routes import GoneError, Teaching, gone
from kanoclip.runtime.service.page.tools.export import Export
from kanoclip.runtime.service.page.tools.regions import Regions
from kanoclip.runtime.service.page.tools.search import GallerySearch
from kanoclip.runtime.service.page.tools.shifts import Shifts
from kanoclip.runtime.service.page.tools.sources import Sources
from kanoclip.runtime.service.shifts.counters import ShiftCounters
from kanoclip.runtime.sinks.draw.palette import as_script

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def make_app(
    options: PageOptions,
    facts: Facts,
    gallery: Gallery,
    pool: Executor,
    *,
    teaching: Executor | None = None,
    labels: LabelledSet | None = None,
    health: Health | None = None,
    metrics: Callable[[], bytes] | None = None,
    shifts: ShiftCounters | None = None,
) -> ASGIApp:
    """The web application, guarded.

    Args:
        options: Where it is served, and for whom.
        facts: The stream and what is known of it.
        gallery: The last anomalies.
        pool: Encodes images.
        teaching: Takes corrections, in one thread; None for the pool that encodes images.
        labels: Where frames are saved that a person labels; None for nowhere.
        health: Answers /healthz and /readyz; None for none.
        metrics: Gives /metrics; None for none.
        shifts: Counts by shift; None for none.
    """
    access = Access(options.token)
    changes, shelf = _Changes(facts), _Shelf(gallery)
    regions = Regions(facts)
    sources = Sources(facts, options.allowed)
    search, export = GallerySearch(gallery), Export(gallery)
    login = Login(access, options, cookie_name(options), STATIC / "login.html")
    routes = [
        Route("/", _index, methods=["GET"]),
        Route("/login", login.form, methods=["GET"]),
        Route("/login", login.enter, methods=["POST"]),
        Route("/logout", login.leave, methods=["POST"]),
        Route("/api/session", login.session, methods=["GET"]),
        WebSocketRoute("/api/live", Live(facts, gallery, pool).serve),
        Route("/api/thresholds", changes.thresholds, methods=["POST"]),
        Route("/api/thresholds/save", changes.save, methods=["POST"]),
        Route("/api/class", changes.choose_class, methods=["POST"]),
        Route("/api/paused", changes.pause, methods=["POST"]),
        Route("/api/gallery", shelf.entries, methods=["GET"]),
        Route("/api/gallery/{key}/{part}", shelf.part, methods=["GET"]),
        Route("/api/region", regions.read, methods=["GET"]),
        Route("/api/region", regions.choose, methods=["POST"]),
        Route("/api/region/save", regions.save, methods=["POST"]),
        Route("/api/sources", sources.add, methods=["POST"]),
        Route("/api/sources/remove", sources.remove, methods=["POST"]),
        Route("/api/sources/label", sources.label, methods=["POST"]),
        Route("/api/search", search.find, methods=["GET"]),
        Route("/api/export", export.download, methods=["POST"]),
        Route("/static/js/drawing/colours.js", _colours, methods=["GET"]),
        *Teaching(facts, gallery, teaching or pool, labels).routes(),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    if health is not None:
        routes += [
            Route("/healthz", _report(health.alive), methods=["GET"]),
            Route("/readyz", _report(health.ready), methods=["GET"]),
        ]
    if metrics is not None:
        routes.append(Route("/metrics", _metrics(metrics), methods=["GET"]))
    if shifts is not None:
        routes.append(Route("/api/shifts", Shifts(shifts).read, methods=["GET"]))
    app = Starlette(
        routes=routes,
        exception_handlers={
            KanoclipError: _refused,
            BadRequestError: _refused,
            MissingError: _missing,
            GoneError: gone,
        },
    )
    return Guard(app, options, access)


async def _index(request: Request) -> Response:
    return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})


async def _colours(request: Request) -> Response:
    return Response(as_script(), media_type="text/javascript", headers={"cache-control": "no-cache"})


def _report(infer: Callable[[], HealthReport]) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        report = infer()
        return JSONResponse(report.as_json(), report.http_status)

    return answer


def _metrics(metrics: Callable[[], bytes]) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        text = await asyncio.get_running_loop().run_in_executor(None, metrics)
        return Response(text, media_type=METRICS_TYPE)

    return answer


async def _refused(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


async def _missing(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "it is no longer there"}, 404)


class _Changes:
    """Changes of the running stream; each is logged with who requested it."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    async def thresholds(self, request: Request) -> Response:
        values = await values_of(request, {"image", "pixel"})
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e9:
                raise BadRequestError(f"{name} must be a number")
        control = self._facts.control
        before = control.state()
        control.choose_thresholds(image=values.get("image"), pixel=values.get("pixel"))
        after = control.state()
        self._facts.changes += 1
        self._facts.unsaved.changed(before, after)
        for what, old, new in (
            ("threshold", before.threshold, after.threshold),
            ("pixel threshold", before.pixel_threshold, after.pixel_threshold),
        ):
            if old != new:
                log.info("%s of %s: %.4g, was %.4g (%s)", what, after.class_name, new, old, who(request))
        return self._state()

    async def save(self, request: Request) -> Response:
        await values_of(request, set())
        control = self._facts.control
        state = control.state()
        where = await asyncio.get_running_loop().run_in_executor(None, control.save_thresholds)
        self._facts.changes += 1
        self._facts.unsaved.saved(state)
        log.info("thresholds of %s were saved in %s (%s)", state.class_name, where, who(request))
        return JSONResponse({"state": self._facts.state(), "saved": where})

    async def choose_class(self, request: Request) -> Response:
        values = await values_of(request, {"name"})
        name = values.get("name")
        if not isinstance(name, str):
            raise BadRequestError("name must be a class's name")
        self._facts.control.choose_class(name)
        self._facts.changes += 1
        log.info("looks for %s now (%s)", name, who(request))
        return self._state()

    async def pause(self, request: Request) -> Response:
        values = await values_of(request, {"paused"})
        paused = values.get("paused")
        if not isinstance(paused, bool):
            raise BadRequestError("paused must be true or false")
        if paused:
            self._facts.control.pause()
        else:
            self._facts.control.resume()
        self._facts.changes += 1
        log.info("%s (%s)", "paused: frames go by unscored" if paused else "scores again", who(request))
        return self._state()

    def _state(self) -> Response:
        return JSONResponse({"state": self._facts.state()})


class _Shelf:
    """The gallery, for a browser."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery

    async def entries(self, request: Request) -> Response:
        rows = await asyncio.get_running_loop().run_in_executor(None, self._gallery.entries)
        return JSONResponse({"place": self._gallery.place, "entries": [asdict(row) for row in rows]})

    async def part(self, request: Request) -> Response:
        key, part = request.path_params["key"], request.path_params["part"]
        loop, gallery = asyncio.get_running_loop(), self._gallery
        if part == "record":
            values = await loop.run_in_executor(None, gallery.record, key)
            if values is None:
                raise MissingError
            return JSONResponse(values)
        parts = {"picture": gallery.image, "thumbnail": gallery.thumbnail, "map": gallery.map_png}
        if part not in parts:
            raise MissingError
        data = await loop.run_in_executor(None, parts[part], key)
        if data is None:
            raise MissingError
        kind = "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"
        # What a key stands for never changes; "private" keeps it out of proxies.
        return Response(data, media_type=kind, headers={"cache-control": "private, max-age=3600"})
