"""Few descriptors that stand for many: greedy k-centre, and random for comparison."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
PROJECTED = 64
"""Dimensions that distances are measured in: by Johnson and Lindenstrauss within about a fifth of the true ones."""
CANDIDATES = 8
"""So many times the rows are looked at, drawn at random: a frame's neighbouring cells resemble each other."""


def projected(vectors: npt.NDArray[np.floating], seed: int) -> Floats:
    """The vectors [n, D] in a random subspace, distances about as they were: float32 [n, min(D, PROJECTED)]."""
    channels = vectors.shape[1]
    if channels <= PROJECTED:
        return vectors.astype(np.float32)
    draws = np.random.default_rng(seed).standard_normal((channels, PROJECTED)) / np.sqrt(PROJECTED)
    return np.asarray(vectors.astype(np.float32) @ draws.astype(np.float32))


def random_rows(count: int, rows: int, seed: int = 0) -> Indices:
    """So many different numbers below `count`, in order; all of them where there are no more.

    Examples:
        >>> random_rows(3, 5)
        array([0, 1, 2])
    """
    if count <= rows:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, rows, replace=False))


def greedy_rows(vectors: npt.NDArray[np.floating], rows: int, seed: int = 0) -> Indices:
    """Rows that cover all: each is the one that is farthest from those before it.

    The radius of the cover is at most twice the best one's (Gonzalez 1985), on the candidates and up to the projection.

    Args:
        vectors: [n, D].
        rows: How many at most.
        seed: Of the projection, the candidates and the first row; the same seed gives the same rows.

    Returns:
        Different indices of vectors, int64 [min(n, rows)], in the order in which they were chosen: any first part of
        them is a cover too.

    Examples:
        >>> import numpy as np
        >>> sorted(greedy_rows(np.array([[0.0], [0.1], [5.0], [5.1], [9.0]]), 3).tolist()) in ([0, 2, 4], [0, 3, 4],
        ...     [1, 2, 4], [1, 3, 4])
        True
    """
    candidates = random_rows(len(vectors), CANDIDATES * rows, seed)
    if not len(candidates):
        return candidates
    points = projected(vectors[candidates], seed)
    lengths = np.einsum("ij,ij->i", points, points)
    wanted = min(rows, len(candidates))
    chosen = np.empty(wanted, np.int64)
    # Half of the squared distance to the nearest chosen row, up to the point's own length: one product less a step.
    far = np.full(len(points), np.inf, np.float32)
    product, half = np.empty(len(points), np.float32), lengths / 2
    number = int(np.random.default_rng(seed).integers(len(points)))
    for step in range(wanted):
        chosen[step] = number
        np.matmul(points, points[number], out=product)
        np.subtract(half + half[number], product, out=product)
        np.minimum(far, product, out=far)
        far[number] = -np.inf  # rounding must not let a row be chosen twice
        number = int(far.argmax())
    return candidates[chosen]
