"""Frames of which no one knows whether they are good, scored by each other: the suspicious ones are left out.

Each cell is scored by its distance to the nearest cell of each other frame, of which the smallest part is averaged:
what is normal has its like in many frames, and a defect in few, if the frames are mostly good.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kanoclip.runtime.detect.reference.fit import Floats, Halves, Mask, centre_of
from kanoclip.runtime.detect.reference.memory import centred
from kanoclip.runtime.detect.reference.smoothing import smooth

NEAREST = 0.3
"""Share of the other frames whose distances are averaged, the smallest: so many must show the same normal thing."""
REDUCED = 96
"""Principal directions that distances are measured in: a quarter of the work, and all but the same order."""
SAMPLES = 8192
"""Cells that the directions are found from."""
DEVIATIONS = 3.0
"""A frame is suspicious if its peak is so many robust standard deviations above the median..."""
LEAST_EXCESS = 0.05
"""...and above it by this share of it, so that frames that are all alike have no outlier."""
MOST_FRAMES = 0.3
"""Share of the frames that is left out at most."""
CELLS = 0.015
"""Share of the remaining frames' cells that is left out, the most suspicious."""
FINE = 4
"""Pixels a cell of the map whose peak is a frame's."""


@dataclass(frozen=True, eq=False)
class Selection:
    """What is used of unlabelled frames.

    Attributes:
        frames: Which frames are used, bool [n].
        cells: Which cells are, bool [n, T, P]; none of the other frames.
        peaks: How suspicious each frame is, float32 [n].
        bound: From which peak on frames are left out, as long as they are not too many.
    """

    frames: Mask
    cells: Mask
    peaks: Floats
    bound: float

    @property
    def cells_left_out(self) -> int:
        """How many cells of the frames that are used are not."""
        return int((~self.cells[self.frames]).sum())


def select(descriptors: Halves, grid: tuple[int, int], *, most: float = MOST_FRAMES, cells: float = CELLS) -> Selection:
    """Chooses frames and cells that may become a memory.

    Args:
        descriptors: Unit vectors, float16 [n, T, P, D]; at least 3 frames for any to be left out.
        grid: (rows, columns) of the P cells.
        most: Share of the frames that may be left out.
        cells: Share of the remaining frames' cells that is left out.

    Examples:
        >>> import numpy as np
        >>> frames = np.full((8, 1, 4, 3), 3**-0.5) + np.random.default_rng(0).normal(0, 0.01, (8, 1, 4, 3))
        >>> frames[5, 0, 2] = 1, 0, 0
        >>> unit = frames / np.linalg.norm(frames, axis=-1, keepdims=True)
        >>> np.flatnonzero(~select(unit.astype(np.float16), (2, 2)).frames)
        array([5])
    """
    count, tiles = descriptors.shape[:2]
    if count < 3:
        every = np.ones(descriptors.shape[:3], bool)
        return Selection(np.ones(count, bool), every, np.zeros(count, np.float32), float("inf"))
    scores = mutual_distances(descriptors)
    maps = smooth(scores.reshape(-1, *grid), (FINE * grid[0], FINE * grid[1]))
    peaks = maps.reshape(count, tiles, -1).max((1, 2))
    bound = robust_bound(peaks)
    frames = np.ones(count, bool)
    for number in np.argsort(-peaks)[: int(most * count)]:
        frames[number] = peaks[number] <= bound
    used = scores <= np.quantile(scores[frames], 1 - cells)
    return Selection(frames, used & frames[:, None, None], peaks, bound)


def robust_bound(values: Floats, deviations: float = DEVIATIONS) -> float:
    """Above it a value is an outlier: median + `deviations` * 1.4826 * MAD, and LEAST_EXCESS above the median."""
    median = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - median)))
    return median + max(deviations * spread, LEAST_EXCESS * median)


def mutual_distances(descriptors: Halves) -> Floats:
    """Of each cell to the nearest ones of other frames, the smallest NEAREST of them averaged.

    Each pair of frames is multiplied once, for both of them, so that memory is that of a pair and of n * n values a
    cell: 128 MB for 32 frames of 1,024 cells and of 3 tiles 400.

    Args:
        descriptors: float16 [n, T, P, D], at least two frames.

    Returns:
        float32 [n, T, P], 1 - cosine.
    """
    count, tiles, cells, _ = descriptors.shape
    points = _reduced(descriptors.reshape(count, tiles * cells, -1))
    wanted = max(round(NEAREST * (count - 1)), 1)
    found = np.full((count, count - 1, tiles * cells), np.inf, np.float32)
    for one in range(count):
        for other in range(one + 1, count):
            product = points[one] @ points[other].T
            found[one, other - 1] = product.max(1)
            found[other, one] = product.max(0)
    largest = np.partition(found, count - 1 - wanted, axis=1)[:, count - 1 - wanted :]
    return np.asarray(1 - largest.mean(1), np.float32).reshape(count, tiles, cells)


def _reduced(descriptors: Halves) -> Floats:
    """Centred unit vectors [n, P, D] along their principal directions, and of unit length: float32 [n, P, REDUCED]."""
    centre = centre_of(descriptors)
    channels = descriptors.shape[-1]
    if channels <= REDUCED:
        return centred(descriptors, centre)
    listed = descriptors.reshape(-1, channels)
    step = max(len(listed) // SAMPLES, 1)
    sample = centred(listed[::step], centre)
    _, vectors = np.linalg.eigh(sample.T @ sample)  # in order of growing variance
    basis = np.ascontiguousarray(vectors[:, -REDUCED:])
    points = np.empty((*descriptors.shape[:2], REDUCED), np.float32)
    for number, frame in enumerate(descriptors):
        points[number] = centred(centred(frame, centre) @ basis, np.zeros(REDUCED, np.float32))
    return points
