"""What is part and what is background: cells that are unlike those of the frame's border.

It helps where a part lies before a background that varies from frame to frame, and not where a surface fills the
frame: there the border is as much a part as the centre, and all of it is foreground. docs/learn.md has figures.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from kanoclip.runtime.detect.reference.coreset import greedy_rows
from kanoclip.runtime.detect.reference.fit import Floats, Halves, Mask, centre_of
from kanoclip.runtime.detect.reference.memory import centred
from kanoclip.runtime.types import Polygon, RegionOfInterest

RING = 128
"""Rows that stand for the border's cells."""
QUANTILE = 0.98
"""Of the border's own distances: what is farther is no background."""
LEAST, MOST = 0.03, 0.85
"""Shares of the frame that a part must cover; with less or more, there is no telling it from a background."""
OFTEN = 0.2
"""A place is foreground if it is so in this share of the references: a part may move a little."""


@dataclass(frozen=True, eq=False)
class Foreground:
    """Where the part is.

    Attributes:
        cells: Of each reference, bool [n, rows, columns]; all of them where no background was found.
        found: Whether there is a background.
    """

    cells: Mask
    found: bool

    @property
    def share(self) -> float:
        """Of all cells that are foreground."""
        return float(self.cells.mean())

    def usual(self) -> Mask:
        """Where the part usually is, with a cell around it: bool [rows, columns]."""
        often = (self.cells.mean(0) >= OFTEN).astype(np.uint8)
        return cv2.dilate(often, np.ones((3, 3), np.uint8)).astype(bool)

    def region(self, name: str) -> RegionOfInterest:
        """`usual` as a region of interest: what lies outside is not scored."""
        return RegionOfInterest(name, keep=_outlines(self.usual()))


def find_foreground(descriptors: Halves, grid: tuple[int, int]) -> Foreground:
    """Tells the part from its background by the border, which is taken for background.

    Args:
        descriptors: Of whole frames, unit vectors, float16 [n, P, D].
        grid: (rows, columns) of the P cells, at least 4 each.

    Examples:
        >>> import numpy as np
        >>> frame = np.tile(np.array([1.0, 0, 0]), (8, 8, 1))
        >>> frame[2:6, 3:6] = 0, 1, 0
        >>> found = find_foreground(frame.reshape(1, 64, 3).astype(np.float16), (8, 8))
        >>> found.found, int(found.cells.sum())
        (True, 12)
    """
    count = len(descriptors)
    border = np.ones(grid, bool)
    border[1:-1, 1:-1] = False
    vectors = centred(descriptors, centre_of(descriptors))
    ring = vectors[:, border.ravel()]
    bound = _own_distance(ring)
    cover = _cover(ring.reshape(-1, ring.shape[-1]))
    distance = np.stack([1 - (one @ cover.T).max(1) for one in vectors]).reshape(count, *grid)
    kernel = np.ones((3, 3), np.uint8)
    cells = np.empty((count, *grid), bool)
    for number, one in enumerate(distance > bound + 1e-3):  # rounding alone must not make a foreground
        whole = cv2.morphologyEx(one.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
        cells[number] = cv2.morphologyEx(whole, cv2.MORPH_OPEN, kernel).astype(bool)
    found = LEAST <= cells.mean() <= MOST
    return Foreground(cells if found else np.ones_like(cells), bool(found))


def _own_distance(ring: Floats) -> float:
    """How far the border's cells are from the border of other frames; with one frame, from its other half."""
    parts = list(ring) if len(ring) > 1 else np.array_split(ring[0], 2)
    found = []
    for number, part in enumerate(parts):
        cover = _cover(np.concatenate([other for k, other in enumerate(parts) if k != number]))
        found.append(1 - (part @ cover.T).max(1))
    return float(np.quantile(np.concatenate(found), QUANTILE))


def _cover(vectors: Floats) -> Floats:
    return vectors[greedy_rows(vectors, RING)]


def _outlines(cells: npt.NDArray[np.bool_]) -> tuple[Polygon, ...]:
    """Outlines of the cells in shares of the frame; holes are filled."""
    rows, columns = cells.shape
    scale = 4  # corners at the cells' edges, not at their centres
    canvas = np.pad(np.kron(cells, np.ones((scale, scale))).astype(np.uint8), 1)
    contours, _ = cv2.findContours(canvas, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    found = []
    for contour in contours:
        points = contour.reshape(-1, 2).astype(np.float64) - 0.5  # the padding, and the centre of a pixel
        shares = np.clip(points / (scale * columns, scale * rows), 0, 1)
        if len(shares) >= 3:
            found.append(tuple((round(float(x), 4), round(float(y), 4)) for x, y in shares))
    return tuple(found)
