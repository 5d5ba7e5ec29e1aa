"""Whether two runs looked at the same thing in the same way."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

BINS = 10
SLIGHT, MARKED = 0.1, 0.25
"""Population stability from which a change is called so, as is customary."""
CHANCE_Z = 3.09
"""A change that two samples of one population show once in a thousand times is none."""
LEAST_RESPONSE = 0.25
"""Below that the mean images have too little in common to say by how much one is shifted."""
LEAST_SHIFT = 0.02
"""Of the image's side: parts that lie a little differently shift the mean of a few by as much as 0.013."""
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Drift:
    """How a figure differs between two runs.

    Attributes:
        name: The figure's.
        before: Its median in the reference.
        now: Its median.
        psi: Population stability index over the reference's deciles.
        chance: What the index would be by chance once in a thousand times, for so many images.
        distance: Two-sample Kolmogorov-Smirnov: the largest difference of the shares below a value.
        p: Probability of such a distance or a larger one if both were samples of one population.
    """

    name: str
    before: float
    now: float
    psi: float
    chance: float
    distance: float
    p: float

    @property
    def level(self) -> str:
        """`none`, `slight` or `marked`."""
        if self.psi < SLIGHT or self.psi <= self.chance:
            return "none"
        return "marked" if self.psi >= MARKED else "slight"


@dataclass(frozen=True)
class Shift:
    """By how much one mean image is shifted against another.

    Attributes:
        across: Share of the width, to the right above 0.
        down: Share of the height.
        response: Of the correlation, about 0 where nothing fits and 1 where all does.
    """

    across: float
    down: float
    response: float

    @property
    def known(self) -> bool:
        """Whether the images have enough in common."""
        return self.response >= LEAST_RESPONSE

    @property
    def length(self) -> float:
        """How far, in shares of a side."""
        return math.hypot(self.across, self.down)

    @property
    def moved(self) -> bool:
        """Whether there is a shift worth telling."""
        return self.known and self.length >= LEAST_SHIFT


def compare(name: str, before: Values, now: Values) -> Drift | None:
    """Compares a figure of two runs.

    Args:
        name: The figure's.
        before: Its values in the reference, without NaN.
        now: Its values.

    Returns:
        None where one of them has none.
    """
    if not before.size or not now.size:
        return None
    psi, bins = stability(before, now)
    distance = ks_distance(before, now)
    return Drift(
        name,
        float(np.median(before)),
        float(np.median(now)),
        psi,
        chi_square_quantile(bins - 1) * (1 / before.size + 1 / now.size) if bins > 1 else 0.0,
        distance,
        ks_probability(distance, before.size, now.size),
    )


def stability(before: Values, now: Values) -> tuple[float, int]:
    """The population stability index, and the number of bins that it is over.

    The bins are the deciles of the reference; fewer where values repeat. Half an image is added to each, so that an
    empty one does not make it infinite.
    """
    deciles, times = np.unique(np.quantile(before, np.linspace(0, 1, BINS + 1)[1:-1]), return_counts=True)
    # A value that many have is a bin of its own, or what lies above it would be one with it.
    edges = np.unique(np.concatenate([deciles, np.nextafter(deciles[times > 1], np.inf)]))
    counts = [
        np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1) for values in (before, now)
    ]
    used = counts[0] + counts[1] > 0
    old, new = ((count[used] + 0.5) / (count.sum() + 0.5 * used.sum()) for count in counts)
    return float(((new - old) * np.log(new / old)).sum()), int(used.sum())


def chi_square_quantile(freedom: int) -> float:
    """Value that chi-square exceeds as rarely as a normal variable exceeds `CHANCE_Z` (Wilson and Hilferty)."""
    part = 2 / (9 * freedom)
    root: float = 1 - part + CHANCE_Z * math.sqrt(part)
    return freedom * root * root * root


def ks_distance(before: Values, now: Values) -> float:
    """Largest difference between the shares of two samples that lie at or below a value."""
    old, new = np.sort(before), np.sort(now)
    at = np.concatenate([old, new])
    below_old = np.searchsorted(old, at, side="right") / old.size
    below_new = np.searchsorted(new, at, side="right") / new.size
    return float(np.abs(below_old - below_new).max())


def ks_probability(distance: float, before: int, now: int) -> float:
    """Probability of a distance or a larger one, by Kolmogorov's series with Stephens' term for small samples."""
    root = math.sqrt(before * now / (before + now))
    scaled = (root + 0.12 + 0.11 / root) * distance
    if scaled < 0.2:  # the series is slow there, and its value is 1
        return 1.0
    total = math.fsum((-1.0 if k % 2 == 0 else 1.0) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101))
    return min(max(2 * total, 0.0), 1.0)


def find_shift(before: Values, now: Values) -> Shift:
    """By how much a mean image is shifted, by phase correlation.

    Args:
        before: float [h, w].
        now: The same of the other run.
    """
    height, width = before.shape
    window = cv2.createHanningWindow((width, height), cv2.CV_64F)
    flat = [np.ascontiguousarray(image - image.mean(), np.float64) for image in (before, now)]
    if min(image.std() for image in flat) < 1e-6:  # nothing in it that could be seen to move
        return Shift(0.0, 0.0, 0.0)
    (across, down), response = cv2.phaseCorrelate(flat[0], flat[1], window)
    return Shift(across / width, down / height, float(response))
