"""USB cameras: a stand-in for OpenCV's capture and for /dev, since no machine of ours has one (nor v4l2loopback)."""

from __future__ import annotations

import os
import time
from itertools import islice

import numpy as np
import pytest

from kanoclip.runtime.errors import SourceError, SourceRefusedError
from kanoclip.runtime.sources import ReconnectingSource, camera, open_camera, open_stream
from kanoclip.runtime.system.backoff import Backoff


class Devices:
    """What is plugged in: index -> the times of its frames on the driver's clock, or None for a driver without one."""

    def __init__(self):
        self.plugged = {}
        self.open_now = set()

    def capture(self, index):
        return FakeCapture(self, index)


class FakeCapture:
    def __init__(self, devices, index):
        self.devices, self.index = devices, index
        self.opened = index in devices.plugged and index not in devices.open_now
        self.position = 0.0
        if self.opened:
            devices.open_now.add(index)

    def isOpened(self):
        return self.opened

    def set(self, *_):
        return True

    def get(self, prop):
        return self.position if prop == camera.cv2.CAP_PROP_POS_MSEC else 30.0

    def grab(self):
        time.sleep(0.002)
        clock = self.devices.plugged.get(self.index)
        if clock is None:
            return False
        self.position = 1e3 * clock()
        return True

    def retrieve(self):
        return True, np.full((4, 4, 3), self.index, np.uint8)

    def release(self):
        if self.opened:
            self.devices.open_now.discard(self.index)
            self.opened = False


@pytest.fixture
def devices(monkeypatch):
    devices = Devices()
    monkeypatch.setattr(camera.cv2, "VideoCapture", devices.capture)
    return devices


@pytest.mark.parametrize(
    ("clock", "expected"),
    [
        (lambda: time.monotonic() - 0.3, 0.3),  # waited in the driver
        (lambda: 0.0, 0.0),  # a driver that does not tell
        (time.time, 0.0),  # one that tells by another clock
        (lambda: time.monotonic() + 5, 0.0),
        (lambda: -1.0, 0.0),
    ],
)
def test_the_driver_tells_the_time_of_capture_where_it_can(devices, clock, expected):
    devices.plugged[0] = clock
    source = open_camera(0)
    now = time.time()
    frame = next(source.frames())
    source.close()
    assert now - frame.captured_at == pytest.approx(expected, abs=0.1)


def test_a_camera_that_is_plugged_in_again_is_found_under_another_number(devices, tmp_path, monkeypatch):
    """As by /dev/v4l/by-id: the link goes with the device, and comes back pointing elsewhere."""
    link = tmp_path / "usb-Maker_Camera_1234-video-index0"
    numbers = {tmp_path / "video0": 0, tmp_path / "video3": 3}
    for path in numbers:
        path.touch()
    real = camera.device_index

    def device_index(path):
        if not os.path.lexists(path):
            return real(path)
        return numbers[link.resolve()]

    monkeypatch.setattr("kanoclip.runtime.sources.opening.device_index", device_index)
    link.symlink_to(tmp_path / "video0")
    devices.plugged[0] = time.monotonic
    open_it = lambda: open_camera(str(link))  # noqa: E731
    monkeypatch.setattr("kanoclip.runtime.sources.opening.check_camera", lambda spec: None)
    first = open_it()
    source = ReconnectingSource(open_it, first.name, first, backoff=Backoff(0.01, 0.05))
    frames = source.frames()
    assert [int(frame.image[0, 0, 0]) for frame in islice(frames, 3)] == [0, 0, 0]
    link.unlink()
    del devices.plugged[0]
    reasons = []

    def plug_in():
        while source.health().reason is None:  # not before its loss is noticed
            time.sleep(0.01)
        reasons.append(source.health().reason)
        devices.plugged[3] = time.monotonic
        link.symlink_to(tmp_path / "video3")

    import threading

    threading.Timer(0.3, plug_in).start()
    later = list(islice((frame for frame in frames if frame.image[0, 0, 0] == 3), 3))
    source.close()
    assert "no such device" in reasons[0]
    assert source.reconnects == 1 and later[0].index >= 3
    assert devices.open_now == set()


def test_by_its_number_a_camera_is_released_before_it_is_opened_again(devices):
    """Otherwise the kernel keeps /dev/video0 for the old one, and the new one becomes /dev/video1."""
    devices.plugged[0] = time.monotonic
    source = open_stream("0", camera=True)
    frames = source.frames()
    next(frames)
    devices.plugged[0] = None
    import threading

    threading.Timer(0.2, lambda: devices.plugged.update({0: time.monotonic})).start()
    while source.reconnects == 0:
        next(frames)
    source.close()
    assert devices.open_now == set()


def test_what_can_never_be_a_camera_is_not_waited_for(tmp_path):
    with pytest.raises(SourceRefusedError, match="not a camera"):
        open_stream("/dev/null", camera=True, wait=True)
    with pytest.raises(SourceError, match="is not a camera"):
        open_stream("rtsp://x", camera=True, wait=True)
