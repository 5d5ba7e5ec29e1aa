"""Which references are the same image again: copies of a file, or a clip that is played over and over.

A reference that is left out is scored by the others. Where one of these is its copy, the distance is next to none and
says nothing of the next good part: the scale gets too fine, and the map of every later frame is flooded. So copies are
left out together, and count as one frame.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.detect.reference.memory import Floats, Halves, centred

Integers = npt.NDArray[np.int32]

REPEATED = 0.1
"""Two frames show the same if no cell is farther from the one in the same place than this share of the mean distance
within a frame. On two sets of real parts that may be trained on (`deeppcb`, `concrete_crack`): copies as JPEG of
quality 90 reach 0.04, a tenth brighter 0.43, moved by one pixel 0.65; of different parts 2.6 is the least of 1,560
pairs. It is far below that, since good parts in a fixture differ little, and what they differ by is the right scale."""
NEIGHBOURS = 2
"""Cells of the same frame no farther than this, in rows or columns, show the same thing."""
LOOKED_AT = 16
"""Frames whose distances within are averaged, spread evenly."""
CHUNK = 1 << 25
"""Values that are held at a time."""


def groups_of(descriptors: Halves, centre: Floats, grid: tuple[int, int]) -> Integers:
    """Numbers frames by what they show, int32 [n]: 0 for the first and its repeats, 1 for the next that is new.

    A repeat of a repeat belongs to the same group, as a part that moves slowly through the image does.

    Args:
        descriptors: Unit vectors, float16 [n, T, P, D].
        centre: What is subtracted from them before they are compared, float32 [D].
        grid: (rows, columns) of the P cells.

    Examples:
        >>> import numpy as np
        >>> frames = np.random.default_rng(0).normal(size=(3, 1, 9, 8))
        >>> frames[2] = frames[0]
        >>> unit = (frames / np.linalg.norm(frames, axis=-1, keepdims=True)).astype(np.float16)
        >>> groups_of(unit, np.zeros(8, np.float32), (3, 3)).tolist()
        [0, 1, 0]
    """
    count = len(descriptors)
    if count < 2:
        return np.zeros(count, np.int32)
    chosen = np.unique(np.linspace(0, count - 1, min(count, LOOKED_AT)).astype(int))
    within = float(np.mean([distances_within(descriptors[i], centre, grid).mean() for i in chosen]))
    same = is_repeat(_distances(descriptors, centre), within)
    groups = np.full(count, -1, np.int32)
    for first in range(count):
        if groups[first] >= 0:
            continue
        number, waiting = int(groups.max()) + 1, [first]
        groups[first] = number
        while waiting:
            found = np.flatnonzero(same[waiting.pop()] & (groups < 0))
            groups[found] = number
            waiting += found.tolist()
    return groups


def is_repeat(largest: Floats, within: float) -> npt.NDArray[np.bool_]:
    """Whether frames show the same.

    Args:
        largest: Of the distances of their cells, any shape.
        within: Mean distance within a frame.
    """
    return largest < REPEATED * within


def firsts_of(groups: Integers) -> npt.NDArray[np.int64]:
    """The first frame of each group, in the groups' order.

    Examples:
        >>> firsts_of(np.array([0, 1, 0, 2], np.int32)).tolist()
        [0, 1, 3]
    """
    return np.unique(groups, return_index=True)[1]


def distances_within(descriptors: Halves, centre: Floats, grid: tuple[int, int]) -> Floats:
    """Each cell's distance to the nearest of its tile that is not its neighbour, [T, P, D] -> float32 [T, P]."""
    rows, columns = (axis.ravel() for axis in np.indices(grid))
    near = (abs(rows[:, None] - rows) <= NEIGHBOURS) & (abs(columns[:, None] - columns) <= NEIGHBOURS)
    if near.all():  # a grid so small that all cells are neighbours: each other cell will do
        near = np.eye(len(rows), dtype=bool)
    found = np.empty(descriptors.shape[:2], np.float32)
    for number, tile in enumerate(descriptors):
        unit = centred(tile, centre)
        product = unit @ unit.T
        product[near] = -1
        found[number] = 1 - product.max(1)
    return found


def _distances(descriptors: Halves, centre: Floats) -> Floats:
    """The largest 1 - cosine of cells in the same place, of each pair of frames: float32 [n, n]."""
    count, channels = len(descriptors), descriptors.shape[-1]
    cells = descriptors.reshape(count, -1, channels)
    step = max(CHUNK // (count * max(channels, count)), 1)
    alike = np.ones((count, count), np.float32)
    for begin in range(0, cells.shape[1], step):
        part = centred(cells[:, begin : begin + step], centre).swapaxes(0, 1)
        np.minimum(alike, (part @ part.swapaxes(1, 2)).min(0), out=alike)
    return 1 - alike
