"""What frames that a person has labelled do to a class's thresholds. docs/learn-online.md has the rule."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.detect.preprocess import Prepared
from kanoclip.runtime.detect.reference.memory import Correction, Label, ReferenceMemory
from kanoclip.runtime.errors import FrameError
from kanoclip.runtime.types import Image

MARGIN = 1e-3
"""From a labelled frame's score to a threshold that had to give way to it: ten times what float32 engines differ by."""
MOST_IMAGES = 32
"""Labelled frames of a class that thresholds go by, the newest."""
_CORRECTED = "; corrected: "


def placed(threshold: float, fine: Sequence[float], bad: Sequence[float]) -> float:
    """The threshold nearest to one that was set otherwise, by which labelled frames get the verdicts they should.

    Frames at or above it are anomalous. Where no threshold tells fine from bad ones, the bad ones are found.

    Args:
        threshold: By references, or chosen by hand; it stays where it is right for all.
        fine: Scores of fine frames.
        bad: Scores of bad frames.

    Returns:
        A float32 number in [0, 1].

    Examples:
        >>> placed(0.5, fine=[0.4], bad=[0.6])
        0.5
        >>> round(placed(0.5, fine=[0.7], bad=[0.9]), 3), round(placed(0.5, fine=[], bad=[0.3]), 3)
        (0.701, 0.299)
        >>> round(placed(0.5, fine=[0.7], bad=[0.6]), 3)
        0.599
    """
    low, high = max(fine, default=0.0), min(bad, default=1.0)
    found = threshold
    if fine and low >= found:
        found = low + MARGIN
    if bad and high < found:
        found = high - MARGIN
        if fine and found <= low < high:
            found = (low + high) / 2
    rounded = float(np.float32(min(max(found, 0.0), 1.0)))
    return high if bad and fine and low < high and not low < rounded <= high else rounded


def ruled(start: Thresholds, memory: ReferenceMemory) -> Thresholds:
    """Thresholds by all corrections that a memory has.

    Args:
        start: Those without corrections.
        memory: Its corrections' scores are by itself. With a memory a score is the map's largest value, so that one
            rule sets both thresholds.
    """
    fine, bad = (
        [one.score for one in memory.corrected(Label.FINE)],
        [one.score for one in memory.corrected(Label.BAD)],
    )
    image, pixel = placed(start.image, fine, bad), placed(start.pixel, fine, bad)
    origin = start.origin.partition(_CORRECTED)[0]
    if (image, pixel) != (start.image, start.pixel):
        way = "lowered" if image < start.image else "raised"
        origin += f"{_CORRECTED}{way} from {start.image:.4f} by {len(fine)} fine and {len(bad)} bad frames"
    return replace(start, image=image, pixel=pixel, origin=origin)


def false_alarms(memory: ReferenceMemory, threshold: float) -> float:
    """What share of good frames to come a threshold calls anomalous at most, on average over sets of references.

    (k + 1) / (n + 1), where k of the n references that stand for them reach it out of sample.
    """
    scores = memory.loo_scores[memory.counted]
    return (int((scores >= threshold).sum()) + 1) / (len(scores) + 1)


def digest_of(frame: Prepared) -> str:
    """A sha256 of what is scored of a frame."""
    return hashlib.sha256(repr(frame.image.shape).encode() + np.ascontiguousarray(frame.image).tobytes()).hexdigest()


def png_of(frame: Prepared) -> bytes:
    """What is scored of a frame, as PNG.

    Raises:
        FrameError: OpenCV cannot encode it.
    """
    done, data = cv2.imencode(".png", frame.image)
    if not done:
        raise FrameError("the frame cannot be encoded as PNG")
    return data.tobytes()


def image_of(correction: Correction) -> Image:
    """What was scored, uint8 [h, w, 3], BGR.

    Raises:
        FrameError: It is damaged.
    """
    found = cv2.imdecode(np.frombuffer(correction.image, np.uint8), cv2.IMREAD_COLOR)
    if found is None:
        raise FrameError(f"the image of {correction.name}, which was labelled {correction.label.value}, is damaged")
    return np.asarray(found, np.uint8)


def bounded(corrections: Sequence[Correction]) -> tuple[Correction, ...]:
    """The corrections with no more than MOST_IMAGES images, those of the newest."""
    first = max(len(corrections) - MOST_IMAGES, 0)
    return tuple(replace(one, image=b"") if at < first else one for at, one in enumerate(corrections))
