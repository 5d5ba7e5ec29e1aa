"""The region of interest: polygons that a picture is judged in, and others that are left out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from kanoclip.runtime.errors import FrameError, SettingsError

Polygon = tuple[tuple[float, float], ...]
"""Corners (x, y) in shares of the picture's width and height, in [0, 1]; at least 3."""

Mask = npt.NDArray[np.bool_]
"""True where a map counts, bool [height, width]."""

ASPECT_TOLERANCE = 0.02
"""By how much of itself a frame's aspect may differ from that of the picture that pixels were counted on."""
_SHIFT = 8
"""Bits after the point in OpenCV's coordinates."""


@dataclass(frozen=True)
class RegionOfInterest:
    """Where pictures are judged.

    A pixel counts when a polygon to keep covers it, or there is none, and none to ignore does. OpenCV
    draws the edges too, so that a polygon, to keep or to ignore, may be up to a pixel of the map larger, and a quarter
    of one smaller.

    Attributes:
        name: The file's name, for messages and the manifest.
        keep: Polygons inside of which the map counts; empty for the whole picture.
        ignore: Polygons inside of which it does not.
        drawn_on: (width, height) of the picture that pixels were counted on; None for relative coordinates, which fit
            any picture.
    """

    name: str
    keep: tuple[Polygon, ...] = ()
    ignore: tuple[Polygon, ...] = ()
    drawn_on: tuple[int, int] | None = None

    def mask(self, height: int, width: int) -> Mask:
        """The pixels that count, at any size; a picture is stretched to the model's, and so are the polygons.

        Raises:
            SettingsError: None is left.
        """
        mask = _covered(self.keep, height, width) if self.keep else np.ones((height, width), bool)
        mask &= ~_covered(self.ignore, height, width)
        if not mask.any():
            raise SettingsError(f"{self.name}: the polygons leave nothing of the picture")
        return mask

    def check_frame(self, height: int, width: int) -> None:
        """Refuses frames of another shape than the polygons were drawn on.

        Raises:
            FrameError: The aspect differs; another resolution of the same aspect is fine.
        """
        if self.drawn_on is None:
            return
        drawn_width, drawn_height = self.drawn_on
        if abs(width * drawn_height - height * drawn_width) > ASPECT_TOLERANCE * height * drawn_width:
            raise FrameError(
                f"{self.name} was drawn on a picture of {drawn_width}x{drawn_height}, and this frame has "
                f"{width}x{height}: draw it on such a frame, or give relative coordinates"
            )

    def outlines(self, height: int, width: int) -> tuple[list[npt.NDArray[np.int32]], list[npt.NDArray[np.int32]]]:
        """Corners of the polygons to keep and of those to ignore, each int32 [corners, 2], in pixels of a picture."""
        kept, ignored = (
            [_scaled(polygon, height, width, 1.0).round().astype(np.int32) for polygon in polygons]
            for polygons in (self.keep, self.ignore)
        )
        return kept, ignored

    def digest(self) -> str:
        """A sha256 by which to tell regions apart; the file's name and its format do not matter."""
        rounded = [
            [[(round(x, 6), round(y, 6)) for x, y in polygon] for polygon in polygons]
            for polygons in (self.keep, self.ignore)
        ]
        return hashlib.sha256(repr(rounded).encode()).hexdigest()


def _covered(polygons: tuple[Polygon, ...], height: int, width: int) -> Mask:
    """Pixels that any of the polygons covers."""
    canvas = np.zeros((height, width), np.uint8)
    for polygon in polygons:  # one by one: together, what two cover would be outside
        corners = _scaled(polygon, height, width, float(1 << _SHIFT)).round().astype(np.int32)
        cv2.fillPoly(canvas, [corners], 1, cv2.LINE_8, _SHIFT)
    return canvas.astype(bool)


def _scaled(polygon: Polygon, height: int, width: int, factor: float) -> npt.NDArray[np.float64]:
    """Corners in pixels times a factor; the centre of the first pixel is (0, 0), as OpenCV has it."""
    return (np.asarray(polygon, np.float64) * (width, height) - 0.5) * factor
