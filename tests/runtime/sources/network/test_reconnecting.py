"""Losing a source and finding it again, with a source that does as it is told."""

from __future__ import annotations

import threading
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from kanoclip.runtime.errors import SourceError, SourceRefusedError
from kanoclip.runtime.sources import BaseSource, ReconnectingSource, Source
from kanoclip.runtime.sources.network import reconnecting
from kanoclip.runtime.system.backoff import Backoff
from kanoclip.runtime.types import BadFrame, Frame

QUICK = Backoff(first_s=0.01, most_s=0.05)
IMAGE = np.zeros((2, 2, 3), np.uint8)


class Scripted(BaseSource):
    """A source whose frames and ends are written down: numbers are values, an error is raised, an event waited for."""

    live = True
    count = None
    fps = 25.0
    root: Path | None = None

    def __init__(self, *script, name="camera 0"):
        self.name = name
        self.script = script
        self.closed_by = None
        self.opened_by = threading.get_ident()

    def frames(self):
        for index, step in enumerate(self.script):
            if isinstance(step, BaseException):
                raise step
            if isinstance(step, threading.Event):
                step.wait()
            elif isinstance(step, float):
                time.sleep(step)
            else:
                yield Frame(index, self.name, float(step), IMAGE, 0.0)

    def close(self):
        self.closed_by = threading.get_ident()


def script_of(*openings):
    """An `open` that goes through a list: a source, or an error to raise; the last one stays."""
    done = []

    def open_next():
        step = openings[min(len(done), len(openings) - 1)]
        done.append(step)
        if isinstance(step, BaseException):
            raise step
        return step

    open_next.done = done
    return open_next


def lost(words="gone"):
    return SourceError(f"camera 0: {words}")


def messages(caplog):
    return [record.getMessage() for record in caplog.records if record.name.endswith("reconnecting")]


@pytest.fixture(autouse=True)
def all_words(caplog):
    caplog.set_level("INFO", logger="kanoclip.runtime")


def test_frames_are_numbered_on_and_trouble_is_said_once(caplog):
    openings = script_of(Scripted(10, 11, lost()), lost("away"), lost("away"), lost("still away"), Scripted(12, 13))
    source = ReconnectingSource(openings, "camera 0", backoff=QUICK)
    assert type(source).interrupt is not BaseSource.interrupt
    seen = list(source.frames())
    source.close()
    assert [frame.index for frame in seen] == [0, 1, 2, 3]
    assert [frame.captured_at for frame in seen] == [10, 11, 12, 13]
    assert source.reconnects == 1 and source.fps == 25.0
    said = messages(caplog)
    assert len(said) == 2
    assert said[0] == "camera 0: gone; trying again until it is back"
    assert said[1].startswith("camera 0: back after 0.") and "reconnect 1" in said[1]


def test_each_opening_is_read_and_closed_in_a_thread_of_its_own():
    first, second = Scripted(1, lost()), Scripted(2)
    list(ReconnectingSource(script_of(first, second), "camera 0", backoff=QUICK).frames())
    assert first.opened_by and {first.closed_by, second.closed_by}.isdisjoint({threading.get_ident(), None})
    assert first.closed_by is not None


def test_bad_frames_count_too():
    inner = Scripted(1)
    inner.frames = lambda: iter([BadFrame(7, "x", "torn"), Frame(8, "x", 0.0, IMAGE, 0.0)])
    seen = list(ReconnectingSource(script_of(inner), "camera 0", backoff=QUICK).frames())
    assert [item.index for item in seen] == [0, 1] and isinstance(seen[0], BadFrame)


def test_a_source_that_ends_by_itself_has_ended():
    openings = script_of(Scripted(1, 2))
    assert len(list(ReconnectingSource(openings, "gst", backoff=QUICK).frames())) == 2
    assert len(openings.done) == 1


def test_a_stalled_source_is_left_and_its_late_frames_go_nowhere(caplog):
    release = threading.Event()
    stuck = Scripted(1, release, 2, 3)
    source = ReconnectingSource(script_of(stuck, Scripted(4, 5)), "camera 0", backoff=QUICK, stall_s=0.2)
    frames = source.frames()
    started = time.monotonic()
    assert [next(frames).captured_at for _ in range(2)] == [1, 4]
    assert time.monotonic() - started < 2
    release.set()
    assert [frame.captured_at for frame in frames] == [5]
    source.close()
    assert stuck.closed_by is not None
    assert messages(caplog)[0].startswith("camera 0: nothing for 0.2 s;")


def test_a_driver_that_never_returns_costs_a_bounded_number_of_threads(caplog):
    never = threading.Event()
    before = threading.active_count()

    def open_stuck():
        return Scripted(1, never)

    source = ReconnectingSource(open_stuck, "camera 0", backoff=QUICK, stall_s=0.05)
    seen = []
    thread = threading.Thread(target=lambda: seen.extend(source.frames()))
    thread.start()
    time.sleep(1.5)
    assert threading.active_count() - before <= reconnecting.MOST_STUCK + 1
    assert "hangs" in source.health().reason
    started = time.monotonic()
    source.interrupt()
    thread.join(2)
    assert not thread.is_alive() and time.monotonic() - started < 1
    assert len(seen) == reconnecting.MOST_STUCK
    never.set()  # the driver comes back: the threads are gone
    source.close()
    time.sleep(0.1)
    assert threading.active_count() == before


def test_threads_that_hang_are_used_again_once_they_are_back():
    release = threading.Event()
    source = ReconnectingSource(lambda: Scripted(1, release, 2), "camera 0", backoff=QUICK, stall_s=0.05)
    frames = source.frames()
    for _ in range(reconnecting.MOST_STUCK):
        next(frames)
    threading.Timer(0.3, release.set).start()
    assert [frame.captured_at for frame in islice(frames, 2)] == [1, 2]
    source.close()


@pytest.mark.parametrize("state", ["away", "opening", "reading", "not begun"])
def test_it_ends_promptly_when_the_stream_is_stopped(state):
    hold = threading.Event()

    def open_slowly():
        hold.wait()
        return Scripted(1)

    opening = {"away": script_of(lost()), "opening": open_slowly, "reading": script_of(Scripted(1, hold))}
    source = ReconnectingSource(opening.get(state, script_of(Scripted(1))), "camera 0", backoff=Backoff(60, 60))
    seen = []
    thread = threading.Thread(target=lambda: seen.extend(source.frames()))
    if state == "not begun":
        source.interrupt()
    thread.start()
    time.sleep(0.2)
    source.interrupt()
    thread.join(1)
    assert not thread.is_alive()
    assert len(seen) == (state == "reading")
    hold.set()
    source.close()


def test_a_refusal_at_the_start_is_an_error_and_later_it_is_said_and_tried_rarely(monkeypatch, caplog):
    refusal = SourceRefusedError("camera 0: wants credentials")
    with pytest.raises(SourceRefusedError):
        list(ReconnectingSource(script_of(lost("booting"), refusal), "camera 0", backoff=QUICK).frames())
    caplog.clear()
    monkeypatch.setattr(reconnecting, "REFUSED_WAIT_S", 0.4)
    openings = script_of(Scripted(1, lost()), refusal, refusal, Scripted(2))
    started = time.monotonic()
    seen = list(ReconnectingSource(openings, "camera 0", backoff=QUICK).frames())
    assert len(seen) == 2 and time.monotonic() - started > 0.8
    said = messages(caplog)
    assert len(said) == 3 and said[1].startswith("camera 0: wants credentials; trying again every")


def test_a_defect_is_no_outage():
    with pytest.raises(ZeroDivisionError):
        list(ReconnectingSource(script_of(Scripted(1, ZeroDivisionError())), "camera 0", backoff=QUICK).frames())


def test_an_error_of_the_operating_system_is_an_outage():
    openings = script_of(Scripted(1, OSError(19, "No such device")), Scripted(2))
    assert len(list(ReconnectingSource(openings, "camera 0", backoff=QUICK).frames())) == 2


def test_a_source_that_comes_and_goes_does_not_fill_the_log(caplog):
    openings = script_of(*[Scripted(number, lost()) for number in range(40)], Scripted(40, 0.4, 41))
    source = ReconnectingSource(openings, "camera 0", backoff=QUICK, steady_s=0.3)
    assert len(list(source.frames())) == 42
    assert source.reconnects == 40
    said = messages(caplog)
    assert len(said) == 4
    assert "unsteady" in said[2]
    assert "lost 39 times meanwhile" in said[3]


def test_new_reasons_are_said_when_it_takes_long_but_not_without_end(monkeypatch, caplog):
    monkeypatch.setattr(reconnecting, "LONG_S", 0.0)
    trouble = [lost(f"{'abcdefghij'[number % 10]} {number}") for number in range(30)]
    source = ReconnectingSource(script_of(Scripted(1, lost()), *trouble, Scripted(2)), "camera 0", backoff=QUICK)
    assert len(list(source.frames())) == 2
    assert len(messages(caplog)) == reconnecting.MOST_REASONS + 1


def test_health_tells_what_is_wrong_while_it_is():
    states = []
    scripts = iter([Scripted(1, lost("unplugged")), Scripted(2)])

    def open_next():
        states.append(source.health())
        return next(scripts)

    source = ReconnectingSource(open_next, "camera 0", backoff=QUICK)
    frames = source.frames()
    next(frames)
    assert source.health().connected and source.health().reason is None
    next(frames)  # it is opened again in here
    while_lost = states[-1]
    assert while_lost.reason == "camera 0: unplugged" and while_lost.lost_s > 0 and not while_lost.connected
    assert source.health().connected and source.health().reconnects == 1


def test_one_that_is_never_read_is_closed():
    inner = Scripted(1)
    source: Source = ReconnectingSource(script_of(inner), "camera 0", inner)
    source.close()
    assert inner.closed_by is not None


def test_the_longest_wait_leaves_time_for_opening_within_five_seconds():
    usual = Backoff()
    assert usual.most_s * (1 + usual.scatter) < 2
