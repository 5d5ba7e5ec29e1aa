"""References that are unlike the others: another product, a defect, another camera."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from kanoclip.runtime.detect.reference.repeats import firsts_of
from kanoclip.runtime.detect.reference.unlabelled import frame_peaks, mutual_distances, robust_bound
from kanoclip.runtime.ops.learn.observe import Observed

LEAST_FRAMES = 5
"""Of fewer frames none can be called unlike the others."""
DEVIATIONS = 3.0
"""A frame is reported if it is so many robust standard deviations above the median..."""
LEAST_EXCESS = 0.25
"""...and this share of the median above it. Of good frames of two sets the oddest were 3.6 deviations and 22 % above;
cracked ones from 3.1 and 29 % on, another product from 3.9 and 50 %."""
ASPECTS_APART = 1.1
"""Largest ratio of a frame's aspect to the usual one."""


@dataclass(frozen=True)
class Outlier:
    """A reference that is unlike the others.

    Attributes:
        number: Which of the frames.
        name: Its file.
        reason: Why, in a few words.
    """

    number: int
    name: str
    reason: str


def find_outliers(observed: Observed) -> list[Outlier]:
    """Frames that the others do not explain, and frames of another shape. The most unlike first.

    A frame is as odd as its most odd place, and a place by its distance to the nearest in the most similar frames: so
    a second product is found while most frames show the first.
    """
    names = observed.references.names
    found = {number: Outlier(number, names[number], reason) for number, reason in _odd_shapes(observed)}
    descriptors, grid = observed.references.descriptors, observed.references.grid
    groups = observed.references.groups
    firsts = firsts_of(groups)  # frames that show the same have no distance to each other: each other one would be odd
    if len(firsts) >= LEAST_FRAMES:
        peaks = frame_peaks(mutual_distances(descriptors[firsts]), grid)
        bound = robust_bound(peaks, DEVIATIONS, LEAST_EXCESS)
        median = float(np.median(peaks))
        peaks = peaks[groups]
        for number in np.argsort(-peaks, kind="stable"):
            if peaks[number] > bound:
                how = f"its most unusual place is {peaks[number] / max(median, 1e-6):.1f} times as far as is usual"
                found.setdefault(int(number), Outlier(int(number), names[number], how))
    return list(found.values())


def _odd_shapes(observed: Observed) -> list[tuple[int, str]]:
    """Frames whose aspect is not the most frequent one, with the reason; none where that is of less than half of them.

    Parts that are cut out as they come have no usual shape.
    """
    usual, _ = Counter(observed.sizes).most_common(1)[0]
    found = []
    for number, (height, width) in enumerate(observed.sizes):
        ratio = (height / width) / (usual[0] / usual[1])
        if max(ratio, 1 / ratio) > ASPECTS_APART:
            found.append((number, f"it has {width}x{height} pixels, and most have {usual[1]}x{usual[0]}"))
    return found if 2 * len(found) <= len(observed.sizes) else []
