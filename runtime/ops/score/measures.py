"""What an image looks like, in a few figures: they tell a camera that moved from a part that is bad."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from kanoclip.runtime.types import Image

CROP = 512
"""Side of the middle piece that sharpness is taken from, in the image's own pixels: a smaller copy hides blur."""
MEAN_SIDE = 64
"""Side of the image that is summed up over a run."""


@dataclass(frozen=True, slots=True)
class Measures:
    """Of one image; all but sharpness in [0, 1].

    Attributes:
        brightness: Mean grey level.
        contrast: Standard deviation of the grey levels.
        sharpness: Variance of the Laplacian of grey levels in 0..255, over the middle 512x512 original pixels.
        red: Mean of the channel.
        green: Mean of the channel.
        blue: Mean of the channel.
    """

    brightness: float
    contrast: float
    sharpness: float
    red: float
    green: float
    blue: float


def measure(frame: Image, small: Image) -> Measures:
    """Measures an image.

    Args:
        frame: The original, uint8 [H, W, 3], BGR.
        small: The same at the map's size.
    """
    height, width = frame.shape[:2]
    top, left = max((height - CROP) // 2, 0), max((width - CROP) // 2, 0)
    middle = cv2.cvtColor(frame[top : top + CROP, left : left + CROP], cv2.COLOR_BGR2GRAY)
    _, spread = cv2.meanStdDev(cv2.Laplacian(middle, cv2.CV_16S))
    mean, deviation = cv2.meanStdDev(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY))
    blue, green, red, _ = cv2.mean(small)
    return Measures(
        brightness=float(mean[0, 0]) / 255,
        contrast=float(deviation[0, 0]) / 255,
        sharpness=float(spread[0, 0]) ** 2,
        red=red / 255,
        green=green / 255,
        blue=blue / 255,
    )


def grey_thumbnail(small: Image) -> npt.NDArray[np.uint8]:
    """A grey image of `MEAN_SIDE` squared, of which a run's mean is made."""
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    return np.asarray(cv2.resize(grey, (MEAN_SIDE, MEAN_SIDE), interpolation=cv2.INTER_AREA), np.uint8)
