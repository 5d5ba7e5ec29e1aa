"""Frames and detections that differ from others in one thing keep the rest, fields to come included."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from kanoclip.runtime.types import Detection, Frame, RegionOfInterest, Timings


def other_than_default(value):
    given = {field.name for field in fields(value) if getattr(value, field.name) != field.default}
    assert given == {field.name for field in fields(value)}, "give the new field a value here"


def test_a_smaller_image():
    frame = Frame(3, "a.jpg", 1.7e9, "large", 4.5, 2.5, (9, 9), "camera 0")
    other_than_default(frame)
    assert frame.shrunk("small", (40, 60)) == replace(frame, image="small", full_size=(40, 60))


def test_an_alarm():
    timings = Timings(1.0, 2.0, 3.0, 4.0, 5.0)
    heat = np.zeros((2, 2), np.float32)
    detection = Detection(0.25, "map", True, 0.5, ("r",), "nut", timings, RegionOfInterest("belt.json"), False, 0.25)
    other_than_default(detection)
    assert detection.with_alarm(True) == replace(detection, alarm=True)
    assert replace(detection, map=heat).with_alarm(True).map is heat, "no copy"
