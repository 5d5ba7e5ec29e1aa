"""What is part and what is background: cells that are unlike those near the frame's border.

It helps where a part lies before a background that varies from frame to frame, and not where a surface fills the
frame: there the border is as much a part as the centre, and all of it is foreground. docs/learn.md has figures.

The very border is not looked at: the graph pads frames there, which its descriptors show. Even so the centre of a
surface is up to 1.2 times as far from the border as the border is from itself; CONTRAST is above that.
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
PADDED, WIDTH = 2, 2
"""Cells at the border that show the padding, and cells within them that stand for the background."""
CORE = 0.3
"""Share of the frame's side that lies between the border and the core, which is the part if there is one."""
CONTRAST = 1.25
"""The core's median distance to the background must be so many times the background's own."""
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
    count, inset = len(descriptors), _inset(grid)
    padded = PADDED if min(grid) > 2 * (PADDED + WIDTH) else 0
    ring = (inset >= padded) & (inset < padded + (WIDTH if padded else 1))
    distance = _distances(centred(descriptors, centre_of(descriptors)), ring.ravel()).reshape(count, *grid)
    core = inset >= CORE * min(grid)
    usual, found = float(np.median(distance[:, ring])), float(np.median(distance[:, core]))
    # Rounding alone must not make a part.
    if found < max(CONTRAST * usual, 0.01):
        return Foreground(np.ones((count, *grid), bool), found=False)
    bound = _between(distance[:, inset >= padded])
    kernel = np.ones((3, 3), np.uint8)
    cells = np.empty((count, *grid), bool)
    for number, one in enumerate(distance > bound):
        whole = cv2.morphologyEx(one.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
        cells[number] = cv2.morphologyEx(whole, cv2.MORPH_OPEN, kernel).astype(bool)
    return Foreground(cells, found=True)


def _inset(grid: tuple[int, int]) -> npt.NDArray[np.int64]:
    """How many cells each cell is from the border, 0 for those at it: [rows, columns]."""
    rows, columns = np.indices(grid)
    return np.minimum(np.minimum(rows, grid[0] - 1 - rows), np.minimum(columns, grid[1] - 1 - columns))


def _distances(vectors: Floats, ring: Mask) -> Floats:
    """Each cell's distance to the ring of the other frames; with one frame, to that half of its ring it is not in."""
    found = np.empty(vectors.shape[:2], np.float32)
    if len(vectors) == 1:
        halves = np.array_split(np.flatnonzero(ring), 2)
        for half, other in (halves, halves[::-1]):
            found[0, half] = _nearest(vectors[0, half], vectors[0, other])
        found[0, ~ring] = _nearest(vectors[0, ~ring], vectors[0, ring])
        return found
    for number, one in enumerate(vectors):
        others = np.arange(len(vectors)) != number
        found[number] = _nearest(one, vectors[others][:, ring].reshape(-1, vectors.shape[-1]))
    return found


def _nearest(cells: Floats, background: Floats) -> Floats:
    """1 - the largest cosine with RING rows that stand for a background."""
    cover = background[greedy_rows(background, RING)]
    return np.asarray(1 - (cells @ cover.T).max(1), np.float32)


def _between(values: Floats) -> float:
    """The threshold between two groups of values that explains most of their variance (Otsu)."""
    ordered = np.sort(values, axis=None).astype(np.float64)
    count, sums = len(ordered), np.cumsum(ordered)
    below = np.arange(1, count)
    gap = sums[:-1] / below - (sums[-1] - sums[:-1]) / (count - below)
    best = int((below * (count - below) * gap**2).argmax())
    return float(ordered[best] + ordered[best + 1]) / 2


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
