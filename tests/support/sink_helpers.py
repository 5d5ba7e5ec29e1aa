"""Results to write."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kanoclip.runtime.types import Detection, Frame, Region, Timings

ANOMALY = Detection(
    0.75,
    np.zeros((8, 8), np.float32),
    True,
    0.5,
    (Region(10, 20, 30, 40, 0.9, 600),),
    "nut",
    Timings(1.0, 2.0, 3.0, 0.5, 0.5),
)
NORMAL = replace(ANOMALY, score=0.25, is_anomalous=False, regions=())


def make_frame(index=0, *, source="camera 0", at=None, size=(48, 64), level=90, stream=""):
    at = 1_700_000_000.25 + index if at is None else at
    return Frame(index, source, at, np.full((*size, 3), level, np.uint8), 4.0, stream=stream)


def in_alarm(detection, alarm):
    return replace(detection, alarm=alarm)
