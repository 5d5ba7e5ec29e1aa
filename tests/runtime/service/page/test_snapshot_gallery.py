"""The gallery over the folder that the real snapshot sink writes to."""

from __future__ import annotations

import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from page_helpers import a_frame

from kanoclip.runtime.service.page.gallery import MAX_ENTRIES
from kanoclip.runtime.service.page.snapshot_gallery import SnapshotGallery
from kanoclip.runtime.sinks.snapshots.sink import SnapshotConfig, SnapshotSink


@pytest.fixture
def sink(tmp_path):
    sink = SnapshotSink(SnapshotConfig(tmp_path / "kept", min_interval_s=0.0, max_count=100), untrained=False)
    yield sink
    sink.close()


@pytest.fixture
def gallery(tmp_path):
    return SnapshotGallery(tmp_path / "kept", lambda: 0.4)


def test_it_shows_what_the_sink_keeps(sink, gallery, make_page):
    before = gallery.revision
    sink.write(*a_frame(1, 0.7, stream="left", size=(600, 800)))
    sink.write(*a_frame(2, 0.9, stream="left", size=(600, 800)))
    assert gallery.revision != before
    newest, oldest = gallery.entries()
    assert (newest.score, oldest.score) == (0.9, 0.7)
    assert (newest.captured_at, newest.stream, newest.class_name, newest.threshold) == (1.7e9 + 2, "left", "nut", 0.5)
    client = make_page(gallery=gallery).client
    assert client.get("/api/gallery").json()["place"].endswith("kept")
    base = f"/api/gallery/{newest.key}"
    record = client.get(f"{base}/record").json()
    assert record["size"] == [800, 600] and record["pixel_threshold"] == 0.4 and record["regions"][0]["area"] == 900
    heat = cv2.imdecode(np.frombuffer(client.get(f"{base}/map").content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert heat.shape == (16, 24) and heat.max() == round(0.9 * 255)
    image = cv2.imdecode(np.frombuffer(client.get(f"{base}/picture").content, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (600, 800, 3)
    small = cv2.imdecode(np.frombuffer(client.get(f"{base}/thumbnail").content, np.uint8), cv2.IMREAD_COLOR)
    assert max(small.shape) <= 320


def test_what_the_ring_deletes_is_gone(sink, gallery, tmp_path):
    sink.write(*a_frame(1, 0.7))
    (entry,) = gallery.entries()
    for path in (tmp_path / "kept").glob(f"{entry.key}*"):
        path.unlink()
    assert gallery.entries() == []
    assert gallery.image(entry.key) is gallery.map_png(entry.key) is gallery.record(entry.key) is None
    assert gallery.thumbnail(entry.key) is None


def test_the_list_and_what_is_remembered_are_bounded(sink, gallery):
    for index in range(MAX_ENTRIES + 10):
        sink.write(*a_frame(index, 0.7))
    assert len(gallery.entries()) == MAX_ENTRIES
    started = time.process_time()
    gallery.entries()
    assert time.process_time() - started < 0.1  # records are read once
    assert len(gallery._entries) <= MAX_ENTRIES


@pytest.mark.parametrize("key", ["", "..", "../secret", "x", "20231114T221320.250Z_camera-0_00000042", "a" * 5000])
def test_nothing_else_can_be_read(gallery, tmp_path, key):
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    assert gallery.image(key) is gallery.record(key) is gallery.thumbnail(key) is gallery.map_png(key) is None


def test_records_that_make_no_sense_are_left_out(sink, gallery, tmp_path):
    sink.write(*a_frame(1, 0.7))
    sink.write(*a_frame(2, 0.7))
    first = min((tmp_path / "kept").glob("*.json"))
    for text in ('{"time": 3}', "[]", "{", '{"time": "2023-11-14T22:13:20+00:00"}'):
        first.write_text(text)
        fresh = SnapshotGallery(tmp_path / "kept", lambda: 0.4)
        assert [entry.captured_at for entry in fresh.entries()] == [1.7e9 + 2]


def test_a_folder_that_is_not_there_yet_is_empty(gallery):
    assert gallery.entries() == [] and gallery.revision == 0


def test_scores_that_json_cannot_express_are_shown(sink, gallery):
    frame, detection = a_frame(1, 0.7)
    sink.write(frame, replace(detection, score=float("nan"), is_anomalous=True))
    assert [entry.score for entry in gallery.entries()] == [0.0]
