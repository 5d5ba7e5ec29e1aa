"""Shifts in local time, over days of 23 and 25 hours."""

from __future__ import annotations

import time
from datetime import datetime, timezone

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kanoclip.runtime.errors import SettingsError
from kanoclip.runtime.service.shifts.plan import ShiftPlan

PLAN = ShiftPlan.parse("6:00,14:00,22:00")


@pytest.fixture(params=["Europe/Berlin", "Asia/Kolkata", "America/St_Johns", "UTC"])
def zone(request, monkeypatch):
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("zone", ["Europe/Berlin"], indirect=True)
@pytest.mark.parametrize(
    ("moment", "shift", "bucket"),
    [
        ("2026-03-29T00:30+00:00", "2026-03-28T21:00+00:00", "2026-03-29T00:00+00:00"),  # 01:30, before the jump
        ("2026-03-29T01:10+00:00", "2026-03-28T21:00+00:00", "2026-03-29T01:00+00:00"),  # 03:10, right after it
        ("2026-03-29T04:00+00:00", "2026-03-29T04:00+00:00", "2026-03-29T04:00+00:00"),  # 06:00 of summer
        ("2026-10-25T00:30+00:00", "2026-10-24T20:00+00:00", "2026-10-25T00:00+00:00"),  # 02:30, the first time
        ("2026-10-25T01:30+00:00", "2026-10-24T20:00+00:00", "2026-10-25T01:00+00:00"),  # 02:30, the second time
        ("2026-10-25T04:59+00:00", "2026-10-24T20:00+00:00", "2026-10-25T04:00+00:00"),  # nine hours of night shift
        ("2026-10-25T05:00+00:00", "2026-10-25T05:00+00:00", "2026-10-25T05:00+00:00"),
    ],
)
def test_the_night_the_clocks_change(zone, moment, shift, bucket):
    at = datetime.fromisoformat(moment).timestamp()
    shown = [
        datetime.fromtimestamp(found, timezone.utc).isoformat(timespec="minutes")
        for found in (PLAN.start_of(at), PLAN.bucket_of(at))
    ]
    assert shown == [shift, bucket]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(1.0e9, 2.5e9), st.lists(st.times(), min_size=1, max_size=5, unique=True))
def test_buckets_lie_within_an_hour_and_a_shift(zone, moment, starts):
    plan = ShiftPlan(tuple(sorted(start.replace(second=0, microsecond=0) for start in starts)))
    bucket, shift = plan.bucket_of(moment), plan.start_of(moment)
    assert shift <= bucket <= moment and moment - bucket < 3600.001 and moment - shift <= 25 * 3600
    assert plan.bucket_of(bucket) == bucket and plan.start_of(bucket) == shift


@pytest.mark.parametrize(
    "text", ["", "25:00", "6", "6:00,", "6:0", "6:00;14:00", "<b>", ",".join(f"1:{m:02}" for m in range(30))]
)
def test_what_is_no_plan_is_refused(text):
    with pytest.raises(SettingsError) as caught:
        ShiftPlan.parse(text)
    assert len(str(caught.value).splitlines()) == 1
