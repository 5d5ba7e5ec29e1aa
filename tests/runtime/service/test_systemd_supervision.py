"""What systemd hears of a stream, over a real socket, second by second."""

from __future__ import annotations

import itertools
import logging
import socket

import pytest

from kanoclip.runtime.service.health import Health
from kanoclip.runtime.service.systemd import READY_ANYWAY_S, Notifier, Supervision, service_status

WATCHDOG_S = 30.0


@pytest.fixture
def stream(make_stream):
    return make_stream("belt")


@pytest.fixture
def manager(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        bound.setblocking(False)
        yield bound


@pytest.fixture
def heard(manager):
    """All that systemd has heard since the last time."""

    def receive():
        found = []
        while True:
            try:
                found.append(manager.recv(4096).decode())
            except BlockingIOError:
                return found

    return receive


@pytest.fixture
def health(clock, stream):
    health = Health(clock=clock)
    health.attach(stream)
    return health


@pytest.fixture
def supervision(manager, health, clock):
    return Supervision(Notifier(manager.getsockname()), health, WATCHDOG_S, clock)


@pytest.fixture
def runs(supervision, stream, clock, heard):
    """Lets the stream run with a tick each second; tells when what was heard, without the status."""

    def passes(seconds, each=lambda: None):
        found = []
        for second in range(seconds):
            each()
            supervision.tick(stream.now)
            found += [(second, message) for message in heard() if not message.startswith("STATUS=")]
            clock.passes(1)
        return found

    return passes


def beats(found):
    return [second for second, message in found if message == "WATCHDOG=1"]


def test_ready_with_the_first_scored_frame_and_once(runs, stream):
    assert "READY=1" not in [message for _, message in runs(5)]
    found = runs(60, stream.delivers)
    assert [entry for entry in found if entry[1] == "READY=1"] == [(0, "READY=1")]


def test_ready_also_when_the_camera_is_away_so_that_a_boot_goes_on(runs, stream):
    stream.source(away="no such device")
    found = runs(100)
    assert [entry for entry in found if entry[1] == "READY=1"] == [(int(READY_ANYWAY_S), "READY=1")]


def test_fed_three_times_as_often_as_need_be(runs, stream):
    assert beats(runs(100, stream.delivers)) == list(range(0, 100, 10))


def test_fed_while_the_camera_is_away_for_a_day(runs, stream):
    runs(5, stream.delivers)
    stream.source(away="no frame for 5 s")
    found = beats(runs(24 * 3600))
    assert max(later - earlier for earlier, later in itertools.pairwise(found)) <= WATCHDOG_S / 2


def test_not_fed_while_the_detector_does_not_answer(runs, stream, caplog):
    caplog.set_level(logging.WARNING)
    runs(5, stream.delivers)
    found = beats(runs(300, lambda: stream.delivers(judged=0)))
    assert found and found[-1] <= 40 and len(found) <= 5
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "systemd's watchdog is no longer fed" in caplog.text
    assert len(beats(runs(30, stream.delivers))) == 3
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_not_fed_by_a_main_thread_that_hangs(runs, stream, clock):
    runs(5, stream.delivers)
    clock.passes(1000)  # nobody calls tick, so nothing is sent: that is the point
    assert runs(0) == []


def test_fed_during_a_pause(runs, stream):
    runs(5, stream.delivers)
    stream.becomes(paused=True)
    assert len(beats(runs(100, lambda: stream.delivers(judged=0)))) == 10


def test_a_reload_is_announced_and_over_also_when_it_fails(supervision, runs, stream, heard, clock):
    runs(5, stream.delivers)
    with pytest.raises(OSError), supervision.reloading():
        (started,) = heard()
        assert started.startswith("RELOADING=1\nMONOTONIC_USEC=")
        clock.passes(100)
        raise OSError
    assert heard() == ["READY=1"]
    assert beats(runs(20, stream.delivers))


def test_stopping_once(supervision, runs, stream, heard):
    runs(5, stream.delivers)
    supervision.stopping()
    supervision.stopping()
    assert heard() == ["STOPPING=1"]
    # A sink that takes its time at the end is not killed for it.
    assert len(beats(runs(100, lambda: stream.delivers(judged=0)))) >= 9


def test_status_now_and_then(supervision, stream, clock, heard):
    said = []
    for second in range(25):
        if second == 12:
            stream.delivers(30)
            stream.becomes(fps=12.34, anomalous=2, dropped=1)
        if second == 20:
            stream.source(away="no frame for 5 s")
        supervision.tick(stream.now)
        said += [(second, message) for message in heard() if message.startswith("STATUS=")]
        clock.passes(1)
    figures = "STATUS=12.3 fps, 30 scored, 2 anomalous, 1 dropped; belt is away: no frame for 5 s"
    assert said == [
        (0, "STATUS=waiting for the first frame"),
        (10, "STATUS=waiting for the first frame"),
        (20, figures),
    ]
    assert f"STATUS={service_status(stream.now)}" == figures


def test_ready_is_said_again_when_systemd_s_queue_was_full(supervision, manager, runs, stream, heard):
    filler = Notifier(manager.getsockname())
    while filler.send("X=1"):
        pass
    stream.delivers()
    supervision.tick(stream.now)
    assert "READY=1" not in heard()
    assert (0, "READY=1") in runs(1)


def test_without_systemd_only_health_is_fed(health, stream, clock):
    supervision = Supervision.from_environment(health, {})
    for _ in range(5):
        stream.delivers()
        supervision.tick(stream.now)
        clock.passes(1)
    with supervision.reloading():
        pass
    supervision.stopping()
    assert "it is stopping" in health.ready().reasons
