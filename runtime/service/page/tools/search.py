"""Search in the gallery: by time, score and source, page by page."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kanoclip.runtime.service.page.gallery import Entry, Gallery
from kanoclip.runtime.service.page.requests import BadRequestError

MAX_SEARCHED = 10_000
"""The newest anomalies that are looked through."""
PAGE = 48
"""Anomalies on a page."""


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for; every bound is included.

    Attributes:
        after: Unix time in seconds.
        before: Likewise.
        low: Smallest score.
        high: Largest score.
        stream: The source's name in a run of several; None for all.
        page: From 0.
    """

    after: float = -math.inf
    before: float = math.inf
    low: float = -math.inf
    high: float = math.inf
    stream: str | None = None
    page: int = 0

    @classmethod
    def parse(cls, given: Mapping[str, str]) -> Search:
        """Reads a query.

        Raises:
            BadRequestError: It has an unknown name, or a value that is no finite number.
        """
        known = {"after", "before", "low", "high", "source", "page"}
        if not set(given) <= known:
            raise BadRequestError(f"search by {', '.join(sorted(known))}")
        try:
            bounds = {name: float(given[name]) for name in ("after", "before", "low", "high") if given.get(name)}
            page = int(given.get("page") or 0)
        except ValueError:
            raise BadRequestError("times, scores and pages are numbers") from None
        if not all(map(math.isfinite, bounds.values())) or not 0 <= page <= MAX_SEARCHED:
            raise BadRequestError("times, scores and pages are finite numbers")
        return cls(**bounds, stream=given.get("source"), page=page)

    def takes(self, entry: Entry) -> bool:
        """Whether an anomaly is one of those looked for."""
        return (
            self.after <= entry.captured_at <= self.before
            and self.low <= entry.score <= self.high
            and self.stream in (None, entry.stream)
        )

    def among(self, entries: Iterable[Entry]) -> tuple[list[Entry], int]:
        """One page of what is found, and how much is found in all."""
        found = [entry for entry in entries if self.takes(entry)]
        return found[self.page * PAGE : (self.page + 1) * PAGE], len(found)


class GallerySearch:
    """Answers searches.

    Args:
        gallery: Where to look.
    """

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery

    async def find(self, request: Request) -> Response:
        """One page of results."""
        search = Search.parse(request.query_params)
        rows, total = await asyncio.get_running_loop().run_in_executor(None, self._found, search)
        return JSONResponse(
            {
                "entries": [asdict(row) for row in rows],
                "total": total,
                "page": search.page,
                "pages": -(-total // PAGE),
            }
        )

    def _found(self, search: Search) -> tuple[list[Entry], int]:
        return search.among(self._gallery.entries(MAX_SEARCHED))
