"""One more good frame for a memory, in milliseconds: its rows that the memory lacks take the place of needless ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.detect.reference.coreset import projected
from kanoclip.runtime.detect.reference.fit import ALONE, scores_of
from kanoclip.runtime.detect.reference.fused import nearest
from kanoclip.runtime.detect.reference.memory import Floats, Halves, ReferenceMemory, centred
from kanoclip.runtime.detect.reference.repeats import is_repeat
from kanoclip.runtime.detect.reference.smoothing import smooth

Mask = npt.NDArray[np.bool_]
MOST_NEW = 64
"""Rows that one frame may bring at most: no single frame takes over a memory."""
LEAST_ROWS = 4
"""Rows that a reference must have for a frame to be its copy by them: a single one may be of a plain background, which
each frame shows. Of 20 references of `concrete_crack` and `deeppcb` all copies are found so, of 100 of them 97 and 99;
and none of the other frames."""
LEAST_NEW = 1e-4
"""Of distance: what is nearer to a row is that row, up to rounding."""
SEED = 0


def append(
    memory: ReferenceMemory,
    name: str,
    descriptors: npt.NDArray[np.floating],
    zero_shot: Floats,
    grid: tuple[int, int],
    *,
    most_rows: int,
    inside: Mask | None = None,
) -> ReferenceMemory:
    """A memory with one more reference. Centre and fusion stay, so that scores before and after mean the same.

    The new frame's values out of sample are those by the memory before it. They do not count where it shows what a
    reference shows already (see `repeats`): if the memory has all cells of the new frame, or the new frame all rows of
    a reference, since a full memory has a few of each one's cells. The mean distance within a frame is about the
    fusion's offset divided by ALONE, and what is the same is far nearer than that.

    Args:
        memory: The one before; unchanged.
        name: Of the frame.
        descriptors: Unit vectors, [T, P, D].
        zero_shot: Its maps without a memory, float32 [T, H, W].
        grid: (rows, columns) of the cells.
        most_rows: As the manifest's `memory.rows`.
        inside: Where maps count, bool [T, H, W]; None for everywhere.
    """
    halves = descriptors.astype(np.float16)
    height, width = zero_shot.shape[1:]
    cells = nearest(halves, memory.tensors())
    maps = smooth(cells.reshape(-1, *grid), (height, width))
    score = scores_of(maps[None], zero_shot[None], memory.fusion, inside)
    repeated = _is_known(memory, halves, cells)
    rows, image_of = _covered(memory, halves.reshape(-1, halves.shape[-1]), cells.ravel(), most_rows)
    return replace(
        memory,
        rows=rows,
        image_of=image_of,
        names=(*memory.names, name),
        loo_scores=np.concatenate([memory.loo_scores, score]),
        loo_peaks=np.concatenate([memory.loo_peaks, score]),
        before=None,
        repeats=(*memory.repeats, len(memory.names)) if repeated else memory.repeats,
    )


def _is_known(memory: ReferenceMemory, new: Halves, distance: Floats) -> bool:
    """Whether a frame [T, P, D] shows what a reference shows; `distance` is its cells' to the memory, [T, P]."""
    within = memory.fusion.offset / ALONE
    if is_repeat(distance.max(), within):
        return True
    rows, cells = memory.tensors().rows, centred(new.reshape(-1, new.shape[-1]), memory.centre)
    there = is_repeat(1 - (rows @ cells.T).max(1), within)
    all_rows, same_rows = (
        np.bincount(of, minlength=len(memory.names)) for of in (memory.image_of, memory.image_of[there])
    )
    return bool(((all_rows >= LEAST_ROWS) & (same_rows == all_rows)).any())


def _covered(
    memory: ReferenceMemory, new: Halves, distance: Floats, most_rows: int
) -> tuple[Halves, npt.NDArray[np.int32]]:
    """Rows that cover the new descriptors too, as greedy k-centre would go on.

    The new descriptor that is farthest from all rows comes in. Where there is no room, the row goes that is closest to
    another one, as long as that is closer than the new one is to any: the cover never gets worse by it.

    Args:
        memory: The one before.
        new: Raw descriptors, float16 [p, D].
        distance: Of each to the memory, float32 [p]: 1 - cosine.
        most_rows: How many there may be.
    """
    candidates = np.argsort(-distance)[: 2 * MOST_NEW]
    raw = np.concatenate([memory.rows, new[candidates]])
    image_of = np.concatenate([memory.image_of, np.full(len(candidates), len(memory.names), np.int32)])
    points = projected(centred(raw, memory.centre), SEED)
    # 1 - cosine is half of the squared distance of unit vectors; projected, about so.
    half = np.einsum("ij,ij->i", points, points) / 2
    apart = half[:, None] + half - points @ points.T
    np.fill_diagonal(apart, np.inf)
    old, used = len(memory.rows), np.arange(len(raw)) < len(memory.rows)
    to_used = apart.copy()  # with columns of what is no row out of the way
    to_used[:, old:] = np.inf
    close = to_used.min(1)  # of each to its nearest row other than itself
    count = old
    for _ in range(min(MOST_NEW, len(candidates))):
        best = old + int(np.where(used[old:], -np.inf, close[old:]).argmax())
        if used[best] or close[best] <= LEAST_NEW:
            break
        if count >= most_rows:
            spare = int(np.where(used, close, np.inf).argmin())
            if close[spare] >= close[best]:
                break
            used[spare] = False
            count -= 1
            to_used[:, spare] = np.inf
            stale = np.flatnonzero(apart[spare] <= close)  # it may have been their nearest
            close[stale] = to_used[stale].min(1)
        used[best] = True
        count += 1
        to_used[:, best] = apart[:, best]
        np.minimum(close, apart[best], out=close)
    return raw[used], image_of[used]
