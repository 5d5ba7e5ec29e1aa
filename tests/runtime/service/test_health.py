"""What /healthz and /readyz say through a stream's life."""

from __future__ import annotations

import json

import pytest

from kanoclip.runtime.service.health import Health


@pytest.fixture
def stream(make_stream):
    return make_stream("belt", "oven")


@pytest.fixture
def health(clock):
    return Health(max_frame_age_s=10.0, clock=clock)


def running(health, stream):
    health.attach(stream)
    stream.delivers(5, number=0)
    stream.delivers(5, number=1)
    health.tick(stream.now)


def not_ready(health):
    report = health.ready()
    assert (report.ok, report.status, report.http_status) == (False, "not ready", 503)
    return list(report.reasons)


def test_while_the_engine_is_being_loaded(health, clock):
    clock.passes(900)
    assert health.alive().ok and health.alive().as_json() == {"status": "alive", "reasons": [], "uptime_s": 900.0}
    assert not_ready(health) == ["the engine is being loaded"]


def test_loaded_and_no_frame_yet(health, stream):
    health.attach(stream)
    health.tick(stream.now)
    assert not_ready(health) == ["belt has delivered no frame yet", "oven has delivered no frame yet"]
    stream.delivers(number=0, judged=0)
    stream.delivers(number=1, judged=0)
    assert not_ready(health) == ["no frame was scored yet"]


def test_ready(health, stream):
    running(health, stream)
    report = health.ready()
    assert (report.ok, report.http_status, report.reasons) == (True, 200, ())
    told = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert {key: told[key] for key in ("status", "bundle", "backend", "class", "frames")} == {
        "status": "ready", "bundle": "line3", "backend": "onnxruntime-cpu", "class": "object", "frames": 10,
    }  # fmt: skip
    assert [(source["name"], source["delivered"]) for source in told["sources"]] == [("belt", 5), ("oven", 5)]


def test_a_camera_that_is_away_is_alive_and_not_ready(health, stream, clock):
    running(health, stream)
    stream.source(1, away="no frame for 5 s")
    for _ in range(600):
        clock.passes(1)
        health.tick(stream.now)
    assert health.alive().ok
    assert not_ready(health) == ["oven is away: no frame for 5 s"]


def test_a_last_frame_that_is_too_old(health, stream):
    running(health, stream)
    stream.source(0, last_frame_age_s=10.0)
    assert health.ready().ok
    stream.source(0, last_frame_age_s=12.34)
    assert not_ready(health) == ["the last frame of belt is 12.3 s old"]


def test_frames_that_come_and_are_not_scored(health, stream, clock):
    running(health, stream)
    for _ in range(15):
        clock.passes(1)
        stream.delivers(number=0, judged=0)
        health.tick(stream.now)
    assert not_ready(health) == ["the last frame was scored 15.0 s ago"]
    assert health.alive().ok
    for _ in range(30):
        clock.passes(1)
        health.tick(stream.now)
    report = health.alive()
    assert (report.ok, report.status, report.http_status) == (False, "stuck", 503)
    assert report.reasons == ("frames wait, and none was scored for 45 s",)
    assert not_ready(health) == ["frames wait, and none was scored for 45 s"]


def test_paused(health, stream):
    running(health, stream)
    stream.becomes(paused=True)
    health.tick(stream.now)
    assert health.alive().ok
    assert not_ready(health) == ["it is paused: frames go by unscored"]


def test_reloading_takes_as_long_as_it_takes(health, stream, clock):
    running(health, stream)
    with pytest.raises(ValueError), health.reloading():
        clock.passes(500)
        assert health.alive().ok
        assert "its settings are being read anew" in not_ready(health)
        raise ValueError
    stream.delivers()
    health.tick(stream.now)
    assert health.alive().ok and health.ready().ok


def test_stopping(health, stream, clock):
    running(health, stream)
    health.stopping()
    clock.passes(500)  # a sink takes its time
    assert health.alive().ok
    assert "it is stopping" in not_ready(health)


def test_stopped_before_it_was_loaded(health):
    health.stopping()
    assert not_ready(health) == ["it is stopping"]
