"""The time of capture, from arrivals of which the truth is known."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.sources.network.clock import StreamClock, wall_time

STEP = 0.04


def run(clock, arrivals, ticks):
    return [clock.captured(arrived, tick) for arrived, tick in zip(arrivals, ticks, strict=True)]


@given(
    jitter=st.lists(st.floats(0, 0.02), min_size=60, max_size=60),
    start=st.floats(0, 1e6),
    way=st.floats(0, 0.5),
    drift=st.floats(-1e-4, 1e-4),
    held_at=st.integers(20, 40),
    held_s=st.floats(0, 5),
)
def test_frames_that_were_held_up_get_the_time_at_which_they_were_made(jitter, start, way, drift, held_at, held_s):
    made = [100 + STEP * number for number in range(60)]
    freed = made[held_at] + held_s
    arrivals = [
        max(instant + way + late, freed + way if number >= held_at else 0.0)
        for number, (instant, late) in enumerate(zip(made, jitter, strict=True))
    ]
    for number in range(1, 60):  # in order, one after another
        arrivals[number] = max(arrivals[number], arrivals[number - 1] + 1e-4)
    ticks = [start + (instant - 100) * (1 + drift) for instant in made]
    captured = run(StreamClock(), arrivals, ticks)
    assert None not in captured[10:]
    for instant, found in zip(made, captured, strict=True):
        if found is not None:
            assert -0.002 <= found - instant - way <= 0.025


@given(backlog=st.integers(2, 150), way=st.floats(0.01, 0.2))
def test_what_was_buffered_before_the_opening_is_let_go(backlog, way):
    made = [STEP * number for number in range(backlog + 40)]
    opened = made[backlog - 1] + way
    arrivals = [max(instant + way, opened + 0.002 * number) for number, instant in enumerate(made)]
    captured = run(StreamClock(), arrivals, made)
    for instant, found in zip(made, captured, strict=True):
        assert found is None or abs(found - instant - way) < 0.02
    assert None not in captured[-8:]


@given(
    backlog=st.integers(10, 100),
    hiccups=st.lists(st.tuples(st.integers(0, 99), st.floats(0.03, 0.5)), max_size=3),
)
def test_a_busy_machine_that_holds_up_the_reading_of_old_frames_makes_them_no_newer(backlog, hiccups):
    made = [STEP * number for number in range(backlog + 100)]
    now, captured, clock = made[backlog - 1], [], StreamClock()
    for number, instant in enumerate(made):
        now = max(instant, now + 0.002 + sum(held for place, held in hiccups if place == number))
        captured.append(clock.captured(now, instant))
    wrong = [number for number, (m, c) in enumerate(zip(made, captured, strict=True)) if c and abs(c - m) > 0.05]
    assert not wrong
    assert None not in captured[-30:]


def test_a_stream_that_never_keeps_pace_is_believed_in_the_end():
    captured = run(StreamClock(settle_s=1.0), [0.01 * n for n in range(200)], [STEP * n for n in range(200)])
    assert captured[:100] == [None] * 100 and None not in captured[101:]


def test_a_clock_that_is_set_back_starts_anew():
    clock = StreamClock()
    arrivals = [STEP * number for number in range(40)]
    captured = run(clock, arrivals, [1000 + STEP * n for n in range(20)] + [STEP * n for n in range(20)])
    assert None not in captured[9:20] and captured[20] is None and None not in captured[29:]
    assert captured[-1] == pytest.approx(arrivals[-1])


def test_a_clock_that_stands_still_is_no_clock():
    assert run(StreamClock(settle_s=0), [1.0, 2.0, 3.0], [0.0, 0.0, 0.0]) == [1.0, 2.0, 3.0]


def test_a_clock_that_goes_far_wrong_is_believed_for_twenty_seconds_at_most():
    arrivals = [0.1 * number for number in range(2000)]
    captured = run(StreamClock(settle_s=0), arrivals, [arrived / 2 for arrived in arrivals])
    assert all(0 <= arrived - found <= 20.1 for arrived, found in zip(arrivals, captured, strict=True))


def test_without_a_clock_what_comes_at_once_after_a_silence_is_let_go():
    clock = StreamClock()
    burst = [0.0, 0.001, 0.002, 0.04, 0.08, 0.12, 2.5, 2.501, 2.502, 2.54, 2.58]
    captured = run(clock, burst, [None] * len(burst))
    assert captured == [None, None, None, None, 0.08, 0.12, None, None, None, None, 2.58]


def test_wall_time_follows_the_wall_clock():
    assert wall_time(time.monotonic() - 2) == pytest.approx(time.time() - 2, abs=0.05)
