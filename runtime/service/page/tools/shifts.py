"""Counters by shift, for a browser."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kanoclip.runtime.service.shifts.counters import Counts, ShiftCounters

SHIFTS = 21
"""The last ones that are shown: a week of three a day."""
HOURS = 24


class Shifts:
    """Answers requests for the counters.

    Args:
        counters: The run's.
        wall: Unix time in seconds.
    """

    def __init__(self, counters: ShiftCounters, wall: Callable[[], float] = time.time) -> None:
        self._counters, self._wall = counters, wall

    async def read(self, request: Request) -> Response:
        """The last shifts, newest first, with each source's counts; and the last hours in which something came."""
        return JSONResponse(await asyncio.get_running_loop().run_in_executor(None, self._values))

    def _values(self) -> dict[str, Any]:
        plan = self._counters.plan
        shifts: dict[float, dict[str, Counts]] = {}
        hours: dict[float, Counts] = {}
        for start, source, counts in self._counters.rows():
            of_shift = shifts.setdefault(plan.start_of(start), {})
            of_shift[source] = of_shift.get(source, Counts()) + counts
            hours[start] = hours.get(start, Counts()) + counts
        now = plan.start_of(self._wall())
        return {
            "plan": plan.shown,
            "zone": datetime.now().astimezone().tzname(),
            "shifts": [
                {
                    "start": start,
                    "label": f"{datetime.fromtimestamp(start):%a %d %b, %H:%M}",
                    "now": start == now,
                    "sources": [{"name": name, **asdict(of_shift[name])} for name in sorted(of_shift)],
                }
                for start, of_shift in sorted(shifts.items(), reverse=True)[:SHIFTS]
            ],
            "hours": [
                {"start": start, "label": f"{datetime.fromtimestamp(start):%H:%M}", **asdict(hours[start])}
                for start in sorted(hours)[-HOURS:]
            ],
        }
