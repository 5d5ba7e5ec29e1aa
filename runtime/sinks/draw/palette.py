"""The colours of every heat map, in files and on the page: one palette, and where it lies over an image.

matplotlib's inferno (CC0): even to the eye, and clear to the colour-blind. Its middle lies at the pixel threshold,
whatever that is, so that the same colour always means the same distance from a region. Below `FROM` nothing is laid
over the image: what is normal, and a coloured stain beside a defect, looks as the camera saw it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

MAP_OPACITY = 0.45
"""Opacity where the map counts in full."""
FROM = 0.4
"""Place in the palette from which a colour is seen: 80 % of the pixel threshold."""
FULL = 0.55
"""Place from which it is as opaque as it gets: a tenth of the way from the pixel threshold to 1."""

_Bytes = npt.NDArray[np.uint8]
_Floats = npt.NDArray[np.float64]

COLOURS: _Bytes = np.asarray(
    cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO), np.uint8
).reshape(256, 3)
"""From the palette's lower end to its upper one, uint8 [256, 3], BGR."""


class Layer(NamedTuple):
    """What is laid over an image, by the map's 256 levels.

    Attributes:
        transparency: What is left of the image, uint8 [256]; 255 is all of it.
        laid: What is added, uint8 [256, 1, 3], BGR, multiplied by its opacity.
    """

    transparency: _Bytes
    laid: _Bytes


def place(value: _Floats, pixel_threshold: float) -> _Floats:
    """Places in the palette: 0 at 0, 1/2 at the threshold, 1 at 1; of map values in [0, 1]."""
    bound = min(max(pixel_threshold, 0.001), 0.999)
    return np.where(value < bound, 0.5 * value / bound, 0.5 + 0.5 * (value - bound) / (1 - bound))


def cover(value: _Floats, pixel_threshold: float) -> _Floats:
    """Share of `MAP_OPACITY` that map values are laid over the image with, in [0, 1]."""
    x = np.clip((place(value, pixel_threshold) - FROM) / (FULL - FROM), 0.0, 1.0)
    return x * x * (3 - 2 * x)


@lru_cache(maxsize=16)
def layer(pixel_threshold: float) -> Layer:
    """The layer for a pixel threshold in [0, 1]; remembered, for every frame needs it."""
    value = np.arange(256) / 255
    opacity = cover(value, pixel_threshold) * MAP_OPACITY
    colours = coloured(value, pixel_threshold)
    return Layer(
        np.rint((1 - opacity) * 255).astype(np.uint8),
        np.rint(colours * opacity[:, None]).astype(np.uint8).reshape(256, 1, 3),
    )


def coloured(value: _Floats, pixel_threshold: float) -> _Bytes:
    """Colours of map values: float [...] in [0, 1] to uint8 [..., 3], BGR."""
    return COLOURS[np.floor(place(value, pixel_threshold) * 255 + 0.5).astype(np.intp)]  # as a browser rounds


def as_script() -> str:
    """The palette as a JavaScript module, for the page."""
    rgb = COLOURS[:, ::-1].tolist()
    return (
        f"export const COLOURS = {rgb};\n"
        f"export const FROM = {FROM};\nexport const FULL = {FULL};\nexport const OPACITY = {MAP_OPACITY};\n"
    )
