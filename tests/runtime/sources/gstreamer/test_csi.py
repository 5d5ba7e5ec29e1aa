"""How a CSI camera is asked for its frames: whole ones, and smaller ones where nobody looks at whole ones."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from kanoclip.runtime.detect.preprocess import resize
from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.sources.gstreamer.csi import CsiCamera


def test_defaults():
    assert CsiCamera.parse("csi://0") == CsiCamera(0, width=1920, height=1080, fps=30, flip=0, mode=None, whole=0)
    assert not any("sensor-mode" in part for part in CsiCamera(0).pipeline())


def test_the_image_processor_halves_and_the_sensor_keeps_its_mode():
    whole, half = (" ".join(CsiCamera(0).pipeline(model)) for model in (None, (256, 256)))
    sensor = "nvarguscamerasrc sensor-id=0 ! video/x-raw(memory:NVMM),width=1920,height=1080,framerate=30/1 ! "
    assert whole.startswith(sensor + "nvvidconv flip-method=0 ! video/x-raw,format=BGRx ! queue ")
    # Its default, 0, takes the nearest pixel.
    halved = "nvvidconv flip-method=0 interpolation-method=1 ! video/x-raw,format=BGRx,width=960,height=540 ! queue "
    assert half.startswith(sensor + halved)
    quarter = " ".join(CsiCamera(0, width=3840, height=2160, flip=1).pipeline((256, 256)))
    assert quarter.startswith(
        "nvarguscamerasrc sensor-id=0 ! video/x-raw(memory:NVMM),width=3840,height=2160,framerate=30/1 ! "
        "nvvidconv interpolation-method=1 ! video/x-raw(memory:NVMM),width=1920,height=1080 ! "
        "nvvidconv flip-method=1 interpolation-method=1 ! video/x-raw,format=BGRx,width=540,height=960 ! queue "
    )


@pytest.mark.parametrize(
    ("options", "model", "full", "halvings"),
    [
        ("", (256, 256), (1080, 1920), 1),
        ("", (336, 336), (1080, 1920), 0),  # half of it is less than twice the model's
        ("?width=3840&height=2160", (336, 336), (2160, 3840), 1),
        ("?width=3840&height=2160&flip=2", (256, 256), (2160, 3840), 2),
        ("?flip=1", (256, 128), (1920, 1080), 1),  # turned by a quarter: higher than wide
        ("?flip=7", (256, 512), (1920, 1080), 0),
        ("?width=3840&height=2160", (256, 768), (2160, 3840), 1),  # three tiles side by side
        ("?width=1280&height=1026", (256, 256), (1026, 1280), 1),
        ("?width=4000&height=2052", (256, 256), (2052, 4000), 2),
        ("?width=4002&height=2052", (256, 256), (2052, 4002), 1),  # 2001 has no half
        ("?width=640&height=480", (256, 256), (480, 640), 0),
        ("?whole=1", (256, 256), (1080, 1920), 0),
        ("", (1080, 1920), (1080, 1920), 0),  # a graph that takes the camera's frame
        ("", None, (1080, 1920), 0),
    ],
)
def test_a_frame_is_halved_while_it_has_twice_the_models_size(options, model, full, halvings):
    camera = CsiCamera.parse(f"csi://0{options}")
    assert (camera.full_size, camera.halvings(model)) == (full, halvings)


def test_a_halved_frame_is_resized_to_what_the_whole_one_is():
    frame = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), np.uint8)
    half = cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_LINEAR)  # centres where nvvidconv has them
    difference = np.abs(resize(half, 256, 256).astype(int) - resize(frame, 256, 256))
    assert difference.max() <= 1  # rounded up by one, and to the nearest by the other
    nearest = resize(cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_NEAREST), 256, 256)
    assert np.abs(nearest.astype(int) - resize(frame, 256, 256)).max() > 20


def test_whole_is_yes_or_no():
    with pytest.raises(SourceError, match="whole must be a whole number from 0 to 1, not '2'"):
        CsiCamera.parse("csi://0?whole=2")
