"""Frames of which no one knows whether they are good, scored by each other: the suspicious ones are left out.

Each cell is scored by its distance to the nearest cell of each other frame, of which the smallest part is averaged:
what is normal has its like in many frames, and a defect in few, if the frames are mostly good. Copies (see
`repeats`) are one frame here: a defect that is shown over and over would have its like in many.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kanoclip.runtime.detect.reference.fit import Floats, Halves, Mask, centre_of
from kanoclip.runtime.detect.reference.memory import centred
from kanoclip.runtime.detect.reference.repeats import firsts_of, groups_of
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
LEAST_FRAMES = 3
"""Of fewer, none is odd among them."""
MOST_FRAMES = 0.3
"""Share of the frames that is left out at most."""
CELLS = 0.015
"""Share of the remaining frames' cells that is left out, the most suspicious."""
PAIRS, LEAST_PANEL = 1600, 8
"""So many pairs of frames are compared; each frame with so many others at least."""
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
        descriptors: Unit vectors, float16 [n, T, P, D]; at least LEAST_FRAMES for any to be left out.
        grid: (rows, columns) of the P cells.
        most: Share of the frames that may be left out; copies count as one.
        cells: Share of the remaining frames' cells that is left out.

    Examples:
        >>> import numpy as np
        >>> frames = np.full((8, 1, 4, 3), 3**-0.5) + np.random.default_rng(0).normal(0, 0.01, (8, 1, 4, 3))
        >>> frames[5, 0, 2] = 1, 0, 0
        >>> unit = frames / np.linalg.norm(frames, axis=-1, keepdims=True)
        >>> np.flatnonzero(~select(unit.astype(np.float16), (2, 2)).frames)
        array([5])
    """
    groups = groups_of(descriptors, centre_of(descriptors), grid)
    if groups.max(initial=0) < LEAST_FRAMES - 1:  # so few differ that none is odd among them: each frame has a vote
        groups = np.arange(len(descriptors), dtype=np.int32)
    firsts = firsts_of(groups)
    count = len(firsts)
    if count < LEAST_FRAMES:
        return every(descriptors)
    scores = mutual_distances(descriptors[firsts])
    peaks = frame_peaks(scores, grid)
    bound = robust_bound(peaks)
    frames = np.ones(count, bool)
    for number in np.argsort(-peaks)[: int(most * count)]:
        frames[number] = peaks[number] <= bound
    used = scores <= np.quantile(scores[frames], 1 - cells)
    return Selection(frames[groups], (used & frames[:, None, None])[groups], peaks[groups], bound)


def every(descriptors: Halves) -> Selection:
    """All of the frames [n, T, P, D] and of their cells: somebody vouches for them, or they are too few to compare."""
    count = len(descriptors)
    cells = np.ones(descriptors.shape[:3], bool)
    return Selection(np.ones(count, bool), cells, np.zeros(count, np.float32), float("inf"))


def frame_peaks(scores: Floats, grid: tuple[int, int]) -> Floats:
    """How suspicious each frame is by its most suspicious place: float32 [n] of cells' scores [n, T, P]."""
    maps = smooth(scores.reshape(-1, *grid), (FINE * grid[0], FINE * grid[1]))
    return np.asarray(maps.reshape(len(scores), -1).max(1), np.float32)


def robust_bound(values: Floats, deviations: float = DEVIATIONS, excess: float = LEAST_EXCESS) -> float:
    """Above it a value is an outlier: median + `deviations` * 1.4826 * MAD, and this share above the median."""
    median = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - median)))
    return median + max(deviations * spread, excess * median)


def mutual_distances(descriptors: Halves) -> Floats:
    """Of each cell to the nearest ones of other frames, the smallest NEAREST of them averaged.

    Memory is that of a pair of frames and of a value for each cell and other frame: 128 MB for 32 frames of 1,024
    cells. Beyond about 40 frames each is compared with fewer others, spread evenly, so that the time stays.

    Args:
        descriptors: float16 [n, T, P, D], at least two frames.

    Returns:
        float32 [n, T, P], 1 - cosine.
    """
    count, tiles, cells, _ = descriptors.shape
    points = _reduced(descriptors.reshape(count, tiles * cells, -1))
    size = min(count, max(PAIRS // count, LEAST_PANEL))
    panel = {int(frame): k for k, frame in enumerate(np.linspace(0, count - 1, size).round())}
    similar = np.full((count, size, tiles * cells), -np.inf, np.float32)
    for one in range(count):
        for other, place in panel.items():
            if other == one or (one in panel and other < one):
                continue
            product = points[one] @ points[other].T
            similar[one, place] = product.max(1)
            if one in panel:  # the same product is that of the other one
                similar[other, panel[one]] = product.max(0)
    found = np.empty((count, tiles * cells), np.float32)
    for one in range(count):
        wanted = max(round(NEAREST * (size - (one in panel))), 1)
        found[one] = 1 - np.partition(similar[one], size - wanted, axis=0)[-wanted:].mean(0)
    return found.reshape(count, tiles, cells)


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
