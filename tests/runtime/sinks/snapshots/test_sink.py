"""Snapshots: what is kept, in what bounds, over restarts, kills and full disks."""

from __future__ import annotations

import json
import logging
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import pytest
from broker import wait_until
from disks import fill, small_disk
from hypothesis import given, settings
from hypothesis import strategies as st
from sink_driver import DrivenSink
from sink_helpers import ANOMALY, NORMAL, in_alarm, make_frame

from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.sinks.events.events import Events
from kanoclip.runtime.sinks.jsonl import record
from kanoclip.runtime.sinks.snapshots.reader import SUFFIXES, newest_snapshots, read_snapshot
from kanoclip.runtime.sinks.snapshots.ring import SnapshotRing
from kanoclip.runtime.sinks.snapshots.sink import SnapshotConfig, SnapshotSink, snapshot_name
from kanoclip.runtime.system.files.own import MARK


def sink_for(folder, **options):
    return SnapshotSink(SnapshotConfig(folder, **({"min_interval_s": 0.0} | options)), untrained=False)


def numbers(folder):
    return [int(name.rpartition("_")[2]) for name in reversed(newest_snapshots(folder, 10_000))]


def used(folder):
    return sum(p.stat().st_size for p in folder.iterdir() if not p.name.startswith("."))


def test_an_anomaly_is_kept_as_two_images_and_a_record(tmp_path):
    sink = sink_for(tmp_path / "new" / "ring")
    sink.write(make_frame(41), NORMAL)
    heat = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    sink.write(make_frame(42, size=(240, 320)), replace(ANOMALY, map=heat))
    sink.close()
    (name,) = newest_snapshots(tmp_path / "new" / "ring", 10)
    assert name == "20231114T221402.250Z_camera-0_00000042"
    snapshot = read_snapshot(tmp_path / "new" / "ring", name)
    assert snapshot.record == json.loads(json.dumps(record(make_frame(42), ANOMALY))) | {
        "stream": "",
        "size": [320, 240],
        "skipped_before": 0,
        "pixel_threshold": 0.5,
    }
    image, annotated = cv2.imread(str(snapshot.image)), cv2.imread(str(snapshot.annotated))
    assert image.shape == (240, 320, 3) and np.abs(image.astype(int) - 90).max() <= 1
    assert annotated.shape[0] > 240 and annotated.shape[1] == 320
    kept = cv2.imread(str(snapshot.map), cv2.IMREAD_UNCHANGED)
    assert kept.shape == (8, 8) and np.abs(kept / 255 - heat).max() <= 0.5 / 255


def test_only_the_rise_of_an_alarm(tmp_path):
    sink = sink_for(tmp_path, events=Events.ALARMS)
    for index, (detection, alarm) in enumerate(
        [(ANOMALY, False), (ANOMALY, True), (ANOMALY, True), (NORMAL, False), (ANOMALY, True)]
    ):
        sink.write(make_frame(index), in_alarm(detection, alarm))
    sink.close()
    assert numbers(tmp_path) == [1, 4]


def test_a_stuck_anomaly_is_kept_once_in_an_interval_of_its_own_source(tmp_path, caplog):
    sink = sink_for(tmp_path, min_interval_s=0.3)
    for index in range(20):
        sink.write(make_frame(index, stream="belt"), ANOMALY)
    sink.write(make_frame(0, stream="press"), ANOMALY)
    time.sleep(0.35)
    sink.write(make_frame(20, stream="belt"), ANOMALY)
    with caplog.at_level(logging.INFO):
        sink.close()
    kept = [read_snapshot(tmp_path, name).record for name in newest_snapshots(tmp_path, 9)]
    assert [(r["stream"], r["frame"], r["skipped_before"]) for r in kept] == [
        ("belt", 20, 19),
        ("press", 0, 0),
        ("belt", 0, 0),
    ]
    assert "19 anomalous frames were not saved" in caplog.text


def test_the_ring_keeps_the_newest_within_both_bounds(tmp_path):
    sink = sink_for(tmp_path, max_count=5)
    for index in range(12):
        sink.write(make_frame(index), ANOMALY)
    sink.close()
    assert numbers(tmp_path) == [7, 8, 9, 10, 11]
    one = used(tmp_path) // 5
    sink = sink_for(tmp_path, max_bytes=3 * one + one // 2)
    assert numbers(tmp_path) == [9, 10, 11], "a smaller bound holds at once"
    for index in range(12, 20):
        sink.write(make_frame(index), ANOMALY)
    sink.close()
    assert numbers(tmp_path) == [17, 18, 19]


def test_foreign_files_stay_and_what_a_killed_writer_left_goes(tmp_path):
    foreign = [
        "notes.txt",
        "picture.jpg",
        "20231114T221402.250Z_camera-0_00000042.png",
        "20231114T221402.250Z_camera-0_00000042.jpg.bak",
        ".hidden.jpg.12.part",
        "20231114T221402.250Z_0042.json",
    ]
    name = "20200101T000000.000Z_camera-0_00000001"
    for file in foreign:
        (tmp_path / file).write_text("mine")
    unfinished = [
        f"{name}.jpg",
        f"{name}.annotated.jpg",
        f"{name}.map.png",
        f".{name}.json.4711.part",
        f".{name}.map.png.12.partial",
    ]
    empty = name.replace("2020", "2021")
    for file in [*unfinished, f"{empty}.jpg", f"{empty}.annotated.jpg", f"{empty}.json"]:
        (tmp_path / file).write_bytes(b"" if file.endswith(".json") else b"x")
    sink = sink_for(tmp_path, max_count=1)
    for index in range(3):
        sink.write(make_frame(index), ANOMALY)
    sink.close()
    (kept,) = newest_snapshots(tmp_path, 9)
    assert {p.name for p in tmp_path.iterdir() if p.name != MARK} == {
        *foreign,
        ".kanoclip-snapshots.lock",
        *(kept + suffix for suffix in SUFFIXES),
    }


WRITES = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from sink_helpers import ANOMALY, make_frame
from kanoclip.runtime.sinks.snapshots.sink import SnapshotConfig, SnapshotSink
sink = SnapshotSink(SnapshotConfig(Path(sys.argv[1]), min_interval_s=0.0, max_count=30), untrained=False)
index = int(sys.argv[3])
while True:
    sink.write(make_frame(index, size=(480, 640)), ANOMALY)
    index += 1
"""


def test_a_writer_that_is_killed_leaves_a_ring_that_the_next_one_mends(tmp_path):
    for run in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITES, tmp_path, Path(__file__).parents[3] / "support", str(run * 10_000)]
        )
        try:
            wait_until(lambda first=run * 10_000: any(n >= first for n in numbers(tmp_path)), 30)
            time.sleep(0.2 + random.Random(run).random() * 0.1)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        for name in newest_snapshots(tmp_path, 100):
            snapshot = read_snapshot(tmp_path, name)
            assert cv2.imread(str(snapshot.image)).shape == (480, 640, 3)
            assert cv2.imread(str(snapshot.annotated)) is not None
    sink = sink_for(tmp_path, max_count=30)
    left = [p.name for p in tmp_path.iterdir() if not p.name.startswith(".kanoclip-")]
    assert len(left) == 4 * len(newest_snapshots(tmp_path, 100)) <= 120
    assert sink._ring.size == used(tmp_path)
    sink.close()


def test_two_writers_in_one_folder_are_refused(tmp_path):
    first = sink_for(tmp_path)
    with pytest.raises(SinkError, match="another kanoclip-run"):
        sink_for(tmp_path)
    first.close()
    sink_for(tmp_path).close()


def test_a_snapshot_larger_than_the_ring(tmp_path):
    sink = sink_for(tmp_path, max_bytes=500)
    with pytest.raises(SinkError, match=r"one snapshot takes .* all may take 500 B"):
        sink.write(make_frame(), ANOMALY)
    sink.close()


def test_names_of_one_moment_do_not_collide(tmp_path):
    sink = sink_for(tmp_path)
    for _ in range(3):
        sink.write(make_frame(7), ANOMALY)
    sink.close()
    assert numbers(tmp_path) == [7, 8, 9]


@given(st.text(max_size=60), st.floats(0, 4e9), st.integers(0, 10**9))
def test_every_name_is_one_that_the_reader_knows(source, at, index):
    from kanoclip.runtime.sinks.snapshots.reader import NAME

    assert NAME.fullmatch(snapshot_name(make_frame(index, source=source, at=at)))
    assert NAME.fullmatch(snapshot_name(make_frame(index, source="x", stream=source, at=at)))


@given(st.lists(st.floats(0, 4e9), min_size=2, max_size=2, unique=True))
def test_names_sort_by_capture_time(times):
    earlier, later = sorted(times)
    if later - earlier >= 0.001:
        assert snapshot_name(make_frame(9, at=earlier)) < snapshot_name(make_frame(0, at=later))


@settings(max_examples=40)
@given(st.lists(st.integers(1, 400), max_size=40), st.integers(1, 6), st.integers(400, 2000), st.data())
def test_a_ring_never_passes_its_bounds_whatever_its_history(tmp_path_factory, sizes, count, most, data):
    folder = tmp_path_factory.mktemp("ring")
    with patch("os.fsync"):
        check_ring(folder, sizes, count, most, data)


def check_ring(folder, sizes, count, most, data):
    ring, added = SnapshotRing(folder, most, count), []
    for index, size in enumerate(sizes):
        if data.draw(st.booleans()):  # a restart
            ring.close()
            ring = SnapshotRing(folder, most, count)
        name = f"20231114T221320.{index:03d}Z_c_{index:08d}"
        ring.add(name, dict(zip(SUFFIXES, (b"r" * (size - size // 3), b"p" * (size // 3), b"", b""), strict=True)))
        added.append((name, size))
        kept = list(reversed(newest_snapshots(folder, 100)))
        assert kept == [n for n, _ in added[-len(kept) :]], "the newest, without a gap"
        assert len(kept) == len(ring) <= count and used(folder) == ring.size <= most
    ring.close()


def test_the_reader_pages_and_refuses_names_from_outside(tmp_path):
    sink = sink_for(tmp_path)
    for index in range(5):
        sink.write(make_frame(index), ANOMALY)
    sink.close()
    first = newest_snapshots(tmp_path, 2)
    second = newest_snapshots(tmp_path, 2, before=first[-1])
    assert [int(n[-1]) for n in first + second] == [4, 3, 2, 1]
    assert newest_snapshots(tmp_path / "none", 5) == []
    (tmp_path / "secret.json").write_text("{}")
    for name in ("secret", "../x", "", first[0] + "/..", first[0] + "\n", first[0].replace("2023", "2022")):
        assert read_snapshot(tmp_path, name) is None
    (tmp_path / f"{first[0]}.json").write_text("{cut")
    assert read_snapshot(tmp_path, first[0]) is None


def test_on_a_full_disk_the_oldest_make_room_for_the_newest(tmp_path):
    with small_disk(tmp_path, 1 << 20):
        sink = sink_for(tmp_path, max_bytes=1 << 30)
        for index in range(6):
            sink.write(make_frame(index, size=(480, 640)), ANOMALY)
        fill(tmp_path / "somebody else's")
        for index in range(6, 12):
            sink.write(make_frame(index, size=(480, 640)), ANOMALY)
        kept = numbers(tmp_path)
        assert kept[-1] == 11 and kept == list(range(kept[0], 12)) and 1 <= len(kept) <= 6
        assert all(read_snapshot(tmp_path, name) is not None for name in newest_snapshots(tmp_path, 9))
        sink.close()


def test_a_disk_that_others_keep_full_does_not_eat_the_ring(tmp_path):
    said = []
    with small_disk(tmp_path, 1 << 20):
        sink = DrivenSink(
            lambda: sink_for(tmp_path), "snapshots", shows=True, notify=said.append, first_retry_s=0.01, settle_s=0
        )
        for index in range(6):
            sink.write(make_frame(index, size=(120, 160)), ANOMALY)
        before = numbers(tmp_path)
        blob = tmp_path / "somebody else's"
        fill(blob)
        noise = np.random.default_rng(0).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)
        large = replace(make_frame(), image=noise)
        for index in range(6, 30):
            sink.write(replace(large, index=index), ANOMALY)
            time.sleep(0.005)
        assert len(said) == 1 and "No space left on device" in said[0]
        assert sink.dropped == 24
        assert before == numbers(tmp_path), "deleting all would not have made room"
        assert not [p for p in tmp_path.iterdir() if p.name.endswith(".part")]
        blob.unlink()
        wait_until(lambda: sink.write(make_frame(99), ANOMALY) or sink.outage is None)
        assert numbers(tmp_path)[-1] == 99 and len(said) == 2
        sink.close()


def test_a_read_only_folder_is_said_once(tmp_path, monkeypatch):
    import os

    sink = sink_for(tmp_path)
    sink.write(make_frame(0), ANOMALY)

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(SinkError, match="Read-only file system"):
        sink.write(make_frame(1), ANOMALY)
    sink.close()
    assert numbers(tmp_path) == [0]
