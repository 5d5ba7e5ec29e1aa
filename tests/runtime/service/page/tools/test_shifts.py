"""Counters by shift, as a browser gets them."""

from __future__ import annotations

from kanoclip.runtime.service.shifts.counters import ShiftCounters
from kanoclip.runtime.service.shifts.plan import ShiftPlan


def test_shifts_hours_and_sources(make_page, control):
    control.sources = ("left <b>", "right")
    counters = ShiftCounters(ShiftPlan.parse("6:00"))
    page = make_page(shifts=counters)
    assert page.client.get("/api/shifts").json()["shifts"] == []
    counters.tick(control.progress())
    answer = page.client.get("/api/shifts").json()
    (shift,) = answer["shifts"]
    counts = {"frames": 5, "anomalous": 1, "alarms": 0, "skipped": 0}
    assert shift["now"] and shift["sources"] == [{"name": name, **counts} for name in control.sources]
    (hour,) = answer["hours"]
    assert hour["frames"] == 10 and hour["anomalous"] == 2 and answer["plan"] == "06:00"


def test_without_counters_there_are_none(make_page):
    assert make_page().client.get("/api/shifts").status_code == 404
