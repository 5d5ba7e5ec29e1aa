"""A stream that moves, one that is stuck, and the many that only look like it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.service.liveness import SLOW, STUCK_S, Liveness


@pytest.fixture
def stream(make_stream):
    return make_stream("belt")


@pytest.fixture
def watch(clock, stream):
    """Lets time pass with a tick each second, and tells the trouble at its end."""
    liveness = Liveness(clock)

    def passes(seconds, each=lambda: None):
        for _ in range(seconds):
            clock.passes(1)
            each()
            liveness.tick(stream.now, paused=stream.now.paused)
        return liveness.failure()

    passes.liveness = liveness
    return passes


def test_frames_that_are_scored(watch, stream):
    assert watch(300, stream.delivers) is None


def test_frames_that_wait_while_none_is_scored(watch, stream):
    watch(5, stream.delivers)
    stream.delivers(2, judged=0)  # the mailbox is full and the source waits
    assert watch(int(STUCK_S)) is None
    assert watch(2) == f"frames wait, and none was scored for {STUCK_S + 2:.0f} s"
    stream.becomes(frames=stream.now.frames + 1)
    assert watch(1) is None


def test_a_live_stream_that_only_drops(watch, stream):
    watch(5, stream.delivers)
    stream.delivers(2, judged=0)  # one in work, one in the mailbox; each further one pushes that out
    assert "frames wait" in watch(60, lambda: stream.delivers(1, judged=0, dropped=1))


def test_dropping_beside_judging_is_a_stream_that_moves(watch, stream):
    assert watch(300, lambda: stream.delivers(5, judged=1, dropped=4)) is None


def test_images_that_cannot_be_read_count_as_moving(watch, stream):
    def each():
        stream.delivers(1, judged=0)
        stream.becomes(skipped=stream.now.skipped + 1)

    assert watch(300, each) is None


def test_a_camera_that_is_away_or_silent_is_no_trouble(watch, stream):
    assert watch(1000) is None  # from the start
    watch(5, stream.delivers)
    stream.source(away="no frame for 5 s")
    assert watch(7 * 24 * 360) is None
    stream.source(away=None)
    assert watch(10, stream.delivers) is None


def test_one_camera_away_does_not_hide_that_the_detector_is_stuck(clock, make_stream):
    stream, liveness = make_stream("a", "b"), Liveness(clock)
    stream.source(1, away="unplugged")
    for second in range(100):
        clock.passes(1)
        stream.delivers(judged=second < 5)
        liveness.tick(stream.now)
    assert "frames wait" in liveness.failure()


@pytest.mark.parametrize("counted", [False, True])
def test_a_pause_is_no_trouble_nor_is_what_it_let_go_by(watch, stream, counted):
    watch(5, stream.delivers)
    stream.becomes(paused=True)
    assert watch(1000, lambda: stream.delivers(1, judged=0) if counted else None) is None
    stream.becomes(paused=False)
    assert watch(1000) is None  # the camera is silent now
    watch(5, stream.delivers)
    stream.delivers(1, judged=0)
    assert "frames wait" in watch(100)


def test_slow_frames_are_given_time(watch, stream):
    stream.delivers()
    stream.becomes(latency_p95=20_000.0)
    watch(1)
    stream.delivers(1, judged=0)
    assert watch(int(SLOW * 20)) is None
    assert watch(2) is not None


def test_a_main_thread_that_does_not_come_round(watch, stream, clock):
    watch(5, stream.delivers)
    clock.passes(STUCK_S + 3)
    assert watch.liveness.failure() == f"the main thread has not come round for {STUCK_S + 3:.0f} s"
    watch.liveness.excuse()
    assert watch.liveness.failure() is None


steps = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 20), st.booleans()), max_size=40)


@given(steps)
def test_a_detector_that_answers_within_the_time_is_never_in_trouble(steps):
    """Whatever comes and is dropped, as long as all that waits is scored before the time is over."""
    now = 0.0
    counts = {"delivered": 0, "frames": 0, "dropped": 0}
    liveness = Liveness(lambda: now)

    class Now:
        skipped, latency_p95 = 0, 0.0

    for come, dropped, seconds, paused in steps:
        counts["delivered"] += come
        counts["dropped"] += min(dropped, counts["delivered"] - counts["frames"] - counts["dropped"])
        for judged in (False, True):
            if judged and not paused:
                counts["frames"] = counts["delivered"] - counts["dropped"]
            progress = Now()
            progress.frames, progress.dropped = counts["frames"], counts["dropped"]
            progress.sources = [type("Source", (), {"delivered": counts["delivered"]})]
            liveness.tick(progress, paused=paused)
            now += seconds if not judged else 0
            assert liveness.failure() is None
