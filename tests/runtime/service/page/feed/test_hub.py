"""The hub keeps the newest frame, encodes it once for all and only when asked."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from page_helpers import a_frame

from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.service.page import gallery as gallery_module
from kanoclip.runtime.service.page.feed import hub as hub_module
from kanoclip.runtime.service.page.feed.hub import MAX_FPS, Hub
from kanoclip.runtime.service.page.gallery import APART_S, BURST, MAX_ENTRIES, MAX_SIDE, MemoryGallery
from kanoclip.runtime.types import BadFrame


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def encodings(monkeypatch):
    """How many images were encoded."""
    done = []
    real = hub_module.encode_jpeg
    monkeypatch.setattr(hub_module, "encode_jpeg", lambda *args: done.append(1) or real(*args))
    return done


def test_nothing_is_encoded_while_nobody_watches(encodings):
    hub = Hub()
    for index in range(50):
        hub.write(*a_frame(index))
    assert encodings == []


def test_the_newest_is_shown_and_the_rest_is_let_go(clock):
    hub = Hub(clock=clock)
    feed = hub.feed("")
    assert feed.image() is None and not feed.fresh(0)
    for index in range(3):
        hub.write(*a_frame(index))
    image = feed.image()
    assert image.number == 3 and image.head["frame"] == 2 and image.head["pixel_threshold"] == 0.4
    assert feed.fresh(0) and not feed.fresh(3)


def test_watchers_share_one_encoding_and_its_rate_is_bounded(clock, encodings):
    hub = Hub(clock=clock)
    feed = hub.feed("")
    for index in range(1000):  # 100 fps for 10 s, eight watchers that ask at once each time
        clock.now += 0.01
        hub.write(*a_frame(index))
        for _ in range(8):
            feed.image()
    assert 10 * MAX_FPS * 0.8 <= len(encodings) <= 10 * MAX_FPS + 1


def test_threads_that_ask_together_cause_one_encoding(encodings):
    hub = Hub()
    hub.write(*a_frame(1, size=(1080, 1920)))
    feed, images = hub.feed(""), []
    threads = [threading.Thread(target=lambda: images.append(feed.image())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(encodings) == 1 and len({id(image) for image in images}) == 1


def test_images_are_small_and_maps_exact(clock):
    hub = Hub(clock=clock)
    frame, detection = a_frame(7, 0.8, size=(2160, 3840))
    hub.write(frame, detection)
    seen = hub.feed("").image()
    image = cv2.imdecode(np.frombuffer(seen.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (720, MAX_SIDE, 3) and abs(int(image.mean()) - 7) <= 1
    heat = cv2.imdecode(np.frombuffer(seen.map_png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.abs(heat / 255 - detection.map).max() <= 0.5 / 255 + 1e-6
    assert seen.head["size"] == [3840, 2160] and seen.head["map_size"] == [24, 16]


def test_sources_are_kept_apart():
    hub = Hub()
    hub.write(*a_frame(0, 0.1, stream="left"))
    hub.write(*a_frame(9, 0.9, stream="right"))
    assert hub.feed("left").image().head["frame"] == 0
    assert hub.feed("right").image().head["frame"] == 9
    assert not hub.feed("left").count().alarm and hub.feed("right").count().alarm


def test_the_alarm_counts_where_there_is_one(clock):
    hub = Hub(clock=clock)
    hub.write(*a_frame(0, 0.9, alarm=False))  # one of five is not enough
    count = hub.feed("").count()
    assert (count.anomalous, count.alarm, count.alarm_age_s) == (1, False, None)
    hub.write(*a_frame(1, 0.1, alarm=True))
    clock.now += 2
    assert (hub.feed("").count().alarm, hub.feed("").count().alarm_age_s, hub.feed("").count().age_s) == (True, 2, 2)


def test_writing_takes_no_time():
    hub = Hub()
    frame, detection = a_frame(0, size=(1080, 1920))
    started = time.thread_time()
    for _ in range(1000):
        hub.write(frame, detection)
    assert time.thread_time() - started < 0.2  # 0.2 ms a frame; encoding one takes 10


def test_the_end_is_told():
    hub = Hub()
    hub.skip(BadFrame(0, "x.jpg", "damaged"))
    assert not hub.ended
    hub.close()
    assert hub.ended


def test_the_gallery_keeps_anomalies_within_its_bounds(clock):
    gallery = MemoryGallery(clock)
    hub = Hub(gallery, clock)
    for index in range(400):
        clock.now += 10
        hub.write(*a_frame(index, 0.9 if index % 2 else 0.1))
    entries = gallery.entries()
    assert len(entries) == MAX_ENTRIES
    assert [entry.captured_at for entry in entries] == [1.7e9 + index for index in range(399, 399 - 120, -2)]
    key = entries[0].key
    assert gallery.record(key)["frame"] == 399 and gallery.record(key)["pixel_threshold"] == 0.4
    assert gallery.image(key).startswith(b"\xff\xd8") and gallery.map_png(key).startswith(b"\x89PNG")
    assert gallery.image("1") is None and gallery.record("x") is None and gallery.thumbnail("") is None


def test_the_gallery_s_bytes_are_bounded(clock, monkeypatch):
    monkeypatch.setattr(gallery_module, "MAX_BYTES", 40_000)
    gallery = MemoryGallery(clock=clock)
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    for index in range(20):
        clock.now += 10
        frame, detection = a_frame(index, 0.9)
        gallery.offer(replace(frame, image=noise), detection)
    assert 1 <= len(gallery.entries()) < 4
    assert gallery._bytes == sum(held.size for held in gallery._held.values())


def test_a_camera_s_defect_that_stays_is_kept_once_a_second(clock):
    gallery = MemoryGallery(clock=clock)
    for index in range(100):
        gallery.offer(*a_frame(index, 0.9))
        clock.now += APART_S / 10
    assert len(gallery.entries()) == 10


def test_bad_parts_in_a_row_are_all_kept_up_to_a_burst(clock):
    gallery = MemoryGallery(clock=clock)
    for index in range(100):
        gallery.offer(*a_frame(index, 0.9, source=f"{index}.jpg"))
    assert len(gallery.entries()) == BURST
    clock.now += 20
    gallery.offer(*a_frame(0, 0.9, source="later.jpg"))
    assert len(gallery.entries()) == BURST + 1


def test_a_frame_that_cannot_be_encoded_is_let_go(clock, monkeypatch):
    def refuse(*_):
        raise SinkError("no")

    gallery = MemoryGallery(clock=clock)
    monkeypatch.setattr(gallery_module, "encode_jpeg", refuse)
    gallery.offer(*a_frame(0, 0.9))
    assert gallery.entries() == [] and gallery.revision == 0
