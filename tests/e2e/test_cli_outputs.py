"""`kanoclip-run` with all its outputs at once: a real broker, receiver and files; and a recording that is cut."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import cv2
import pytest
from broker import Broker, Subscriber, wait_until
from http_receiver import receiver

from kanoclip.runtime.sinks.snapshots.reader import newest_snapshots, read_snapshot

from .helpers import environment, free_port

BIN = Path(sys.executable).parent
SOURCE = "test://?width=320&height=240&fps=10&defect=1"

pytestmark = pytest.mark.timeout(240)


def start(bundle, *arguments, **more):
    engine = ["--bundle", str(bundle), "--backend", "onnxruntime", "--threshold", "0"]
    command = [str(BIN / "kanoclip-run"), "--source", SOURCE, *engine, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**more))


@pytest.mark.programs("mosquitto", "ffmpeg")
def test_every_output_of_a_live_run(toy_bundle, program, tmp_path):
    (tmp_path / "broker").mkdir()
    broker = Broker(program("mosquitto"), tmp_path / "broker").start()
    watcher = Subscriber(broker.port)
    metrics = f"127.0.0.1:{free_port()}"
    with receiver(200) as to:
        run = start(
            toy_bundle,
            *("--output", tmp_path / "x.mp4", "--jsonl", tmp_path / "x.jsonl", "--jsonl-max-bytes", "3K"),
            *("--snapshots", tmp_path / "ring", "--snapshots-interval", "0", "--snapshots-max-count", "5"),
            *("--webhook", f"http://127.0.0.1:{to.port}/hook", "--webhook-on", "frames", "--metrics", metrics),
            KANOCLIP_MQTT=f"mqtt://127.0.0.1:{broker.port}/line3/camera1",
        )
        try:
            wait_until(lambda: len(watcher.frames) >= 25 and len(to.frames) >= 10, 120)
            text = urllib.request.urlopen(f"http://{metrics}/metrics", timeout=10).read().decode()
            run.send_signal(signal.SIGTERM)
            _, complaints = run.communicate(timeout=30)
        finally:
            run.kill()
            watcher.stop()
            broker.stop()
    assert run.returncode == 0, complaints
    # On a busy machine each output may miss frames of its own; none gets one twice or out of order.
    kept = [json.loads(line)["frame"] for n in (".2", ".1", "") for line in (tmp_path / f"x.jsonl{n}").open()]
    names = newest_snapshots(tmp_path / "ring", 99)
    ring = [read_snapshot(tmp_path / "ring", name).record["frame"] for name in reversed(names)]
    for frames in (watcher.frames, to.frames, kept, ring):
        assert frames == sorted(set(frames)) and len(frames) >= 5
    assert len(ring) == 5 and ring[-1] >= watcher.frames[20]
    assert watcher.statuses == ["online", "offline"]
    capture = cv2.VideoCapture(str(tmp_path / "x.mp4"))
    assert capture.read()[0]
    assert "kanoclip_anomalous_frames_total{" in text and 'sink="webhook"' not in text


def frames_in(path):
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    return count


@pytest.mark.programs("ffmpeg")
def test_a_recording_can_be_watched_while_it_grows_and_is_there_after_sigkill(toy_bundle, tmp_path):
    path = tmp_path / "x.mp4"
    run = start(toy_bundle, "--output", path)
    try:
        wait_until(lambda: path.exists() and path.stat().st_size > 1000 and frames_in(path) >= 20, 120)
    finally:
        run.kill()
        run.communicate()
    assert frames_in(path) >= 20
