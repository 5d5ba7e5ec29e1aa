"""A camera's frame rate beside outputs that fail in every way: in turns with runs without a fault."""

from __future__ import annotations

import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
from broker import free_port
from disks import fill, small_disk
from http_receiver import receiver
from sink_helpers import ANOMALY

from kanoclip.runtime.detect.preprocess import Prepared
from kanoclip.runtime.sinks import BaseSink, SinkFactory
from kanoclip.runtime.sinks.events import webhook
from kanoclip.runtime.sinks.events.mqtt import MqttSink
from kanoclip.runtime.sinks.events.mqtt_config import MqttConfig
from kanoclip.runtime.sinks.events.webhook import WebhookSink
from kanoclip.runtime.sinks.events.webhook_config import WebhookConfig
from kanoclip.runtime.sinks.jsonl import JsonLinesSink
from kanoclip.runtime.sinks.snapshots.sink import SnapshotConfig, SnapshotSink
from kanoclip.runtime.sinks.video.encoders import h264_recipe
from kanoclip.runtime.sinks.video.video import VideoSink
from kanoclip.runtime.sources import open_source
from kanoclip.runtime.stream.config import PipelineConfig
from kanoclip.runtime.stream.pipeline import Pipeline
from kanoclip.runtime.system.queues import Policy

pytestmark = pytest.mark.timeout(300)
FPS = 25
ATTEMPTS = 5
"""A machine that other work shares loses frames now and then; a fault that costs frames costs them every time."""


class Detector:
    """Finds an anomaly in every frame, so that every sink has work for every frame."""

    def prepare(self, frame, class_name=None, size=None):
        return Prepared(frame[:8, :8], *frame.shape[:2], 0.1, 0.1)

    def submit(self, frames, class_name=None):
        return lambda: self.infer(frames, class_name)

    def infer(self, frames, class_name):
        np.sort(np.random.default_rng(0).random(20_000))  # some work for a processor, as an engine has
        return [ANOMALY for _ in frames]


class Stuck(BaseSink):
    """Blocks for ever where it is told to."""

    name = "stuck"
    shows = False

    def __init__(self, where, released):
        self._where, self._released = where, released

    def write(self, frame, detection):
        if self._where == "write":
            self._released.wait()

    def skip(self, bad):
        pass

    def close(self):
        if self._where == "close":
            self._released.wait()


def sinks_on(folder):
    """What writes to a disk."""
    return {
        "jsonl": lambda: JsonLinesSink(str(folder / "x.jsonl"), append=True),
        "snapshots": lambda: SnapshotSink(SnapshotConfig(folder / "ring", min_interval_s=0.0), untrained=False),
        "video": lambda: VideoSink(folder / "x.mp4", FPS, live=True, untrained=False),
    }


@contextmanager
def fault(kind, folder):
    """Yields the makers of sinks that this fault is for, by name, and words of which one must be said."""
    with ExitStack() as stack:
        if kind == "disk full":
            disk = stack.enter_context(small_disk(folder, 1 << 20))
            fill(disk / "somebody else's")
            yield sinks_on(disk), "No space left on device"
        elif kind == "read-only":
            disk = stack.enter_context(small_disk(folder, 1 << 20))
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            yield sinks_on(disk), "Read-only file system"
        elif kind == "webhook hangs":
            to = stack.enter_context(receiver("hang"))
            config = WebhookConfig.parse(f"http://127.0.0.1:{to.port}/", environment={})
            yield {"webhook": lambda: WebhookSink(config, untrained=False, notify=said.append)}, "no answer for"
        elif kind == "broker away":
            config = MqttConfig.parse(f"mqtt://127.0.0.1:{free_port()}/x", environment={})
            yield {"mqtt": lambda: MqttSink(config, notify=said.append)}, "Connection refused"
        else:
            released = threading.Event()
            stack.callback(released.set)
            where = kind.partition(" ")[0]
            yield (
                {"stuck": lambda: Stuck(where, released)},
                "no answer for" if where == "write" else "could not be finished",
            )


said: list[str] = []
KINDS = ("disk full", "read-only", "webhook hangs", "broker away", "write blocks for ever", "close blocks for ever")


def frames_per_second(makers, seconds, fps=FPS, observer=None):
    sinks = [
        SinkFactory(
            make,
            name,
            shows=name != "jsonl",
            notify=said.append,
            patience_s=0.3 if name == "stuck" else 20.0,
            grace_s=0.3 if name == "stuck" else 20.0,
        )
        for name, make in makers.items()
    ]
    source = open_source(f"test://?width=320&height=240&fps={fps}")
    pipeline = Pipeline(source, Detector(), sinks, PipelineConfig(Policy.DROP_OLDEST), observer=observer)
    end = threading.Timer(seconds, pipeline.stop)
    end.start()
    summary = pipeline.run()
    end.cancel()
    return summary.frames / seconds, {sink.name: summary.sink_dropped.get(sink.name, 0) for sink in sinks}


def compare(kind, folder, seconds, pairs, fps=FPS):
    """Frame rates without and with a fault, in turns; what was said, by run; what was dropped in the last."""
    without, beside, lines = [], [], []
    for number in range(pairs):
        place = folder / f"{kind}-{number}"
        place.mkdir()
        without.append(frames_per_second({}, seconds, fps)[0])
        said.clear()
        with fault(kind, place) as (makers, words):
            rate, dropped = frames_per_second(makers, seconds, fps)
        beside.append(rate)
        assert all(any(name in line and words in line for line in said) for name in makers), said
        lines.append(list(said))
    return without, beside, lines, dropped


def said_once_and_lost(without, beside, lines, dropped):
    """Checks what was said; returns the share of the frame rate that was lost."""
    sinks = len(dropped)
    for run in lines:
        # Each outage once; and at the end what was lost for good.
        assert len([line for line in run if "the stream goes on" in line or "wait for it" in line]) <= sinks, run
        assert len(run) <= 2 * sinks, run
    return 1 - np.median(beside) / max(1.0, np.median(without))


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    h264_recipe()  # as kanoclip-run does before the stream starts
    monkeypatch.setattr(webhook, "ANSWER_TIMEOUT_S", 0.3)
    monkeypatch.setattr(webhook, "CLOSE_GRACE_S", 0.2)


@pytest.mark.parametrize("kind", KINDS)
def test_the_frame_rate_stays(kind, tmp_path):
    judged_by = []
    for attempt in range(ATTEMPTS):
        (place := tmp_path / str(attempt)).mkdir()
        without, beside, lines, dropped = compare(kind, place, 1.2, 1)
        loss = said_once_and_lost(without, beside, lines, dropped)
        if without[0] >= 0.9 * FPS:
            judged_by.append(loss)
            if loss <= 0.05:
                return
    if len(judged_by) < 2:
        pytest.skip(f"this machine is too busy to score {FPS} fps without any fault: {without}")
    pytest.fail(f"{kind}: {np.round(100 * np.array(judged_by), 1)} % fewer frames beside it, each time")


def test_the_measure_sees_what_does_slow_the_camera():
    rate, _ = frames_per_second({}, 1.2, observer=lambda result: time.sleep(1.5 / FPS))
    assert rate < 0.8 * FPS


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_the_frame_rate_stays_for_longer(kind, tmp_path):
    without, beside, lines, dropped = compare(kind, tmp_path, 15.0, 3, fps=40)
    loss = said_once_and_lost(without, beside, lines, dropped)
    print(f"\n{kind}: {np.median(without):.2f} -> {np.median(beside):.2f} fps ({100 * loss:+.2f} %)", dropped)
    print("\n".join(lines[-1]))
    assert loss <= 0.05
