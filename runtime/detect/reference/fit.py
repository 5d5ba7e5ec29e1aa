"""From the descriptors and zero-shot maps of references to a memory, and to each reference's values out of sample.

Each reference is scored by a memory without it. Let R_i be these scores, and s(x) the score of a frame to come by the
memory of all n references. With a nearest-neighbour memory, one more reference never raises a score. So s(x) is at most
what x would get as one of n + 1 references, T_{n+1}, and R_i is at least T_i. The T are exchangeable where the frames
are: what conformal prediction promises for a threshold set by R holds for s, and not only at twice the rate as for the
jackknife+ in general (Barber et al. 2021). Choosing rows, centre and fusion breaks this argument a little, which is why
docs/learn.md has the measured rates.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.detect.reference.coreset import CANDIDATES, greedy_rows, random_rows
from kanoclip.runtime.detect.reference.fused import fuse, logits, nearest
from kanoclip.runtime.detect.reference.memory import Fusion, ReferenceMemory, centred, make_tensors
from kanoclip.runtime.detect.reference.repeats import distances_within, groups_of
from kanoclip.runtime.detect.reference.smoothing import smooth

Halves = npt.NDArray[np.float16]
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

CENTRING = 0.5
"""Share of the references' mean descriptor that is subtracted: what all have in common hides what differs."""
QUANTILE = 0.999
"""Of all pixels of good maps out of sample: the level that counts as 1."""
ZERO_WEIGHT = 0.2
"""Of the zero-shot logit beside the distance, both in units of what good references reach."""
ZERO_MARGIN = 1.0
"""Added to the spread of the zero-shot logits: where good references have all but none, it must not be blown up."""
SHARPNESS = 2.0
"""Slope of the fused logit: 0.5 is the level that good references hardly reach. With one reference good frames come to
z = 4 and bad ones to 5: with twice the slope hardly anything would be left between these and 1 in float32."""
LEAST_SPREAD = 0.01
"""Of distances, from the mean to the quantile: that of half-precision rounding alone is a tenth of it."""
FOLDS = 10
"""Up to so many groups of references (see `repeats`) each is left out by itself; of more, a tenth at a time, next to
each other in their order, since neighbours in a video resemble each other."""
ALONE = 1.6
"""By how much another good frame is farther from a single reference than that is from itself: 1.7 and 1.5 times at the
0.999 quantile on the two sets of real parts that may be trained on (`deeppcb`, `concrete_crack`)."""


@dataclass(frozen=True, eq=False)
class References:
    """Good frames as the graph sees them. Descriptors are float16, of which everything is computed.

    Attributes:
        names: Of the n frames.
        descriptors: Unit vectors, float16 [n, T, P, D]; T is 1 where frames are not cut into tiles.
        zero_shot: Maps without a memory, float32 [n, T, H, W].
        grid: (rows, columns) of the P cells.
        views: Descriptors of the same frames mirrored or turned, float16 [k, T, P, D]; they are rows and nothing else.
        view_of: Which frame each view is of, int32 [k].
    """

    names: tuple[str, ...]
    descriptors: Halves
    zero_shot: Floats
    grid: tuple[int, int]
    views: Halves
    view_of: Integers

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def groups(self) -> Integers:
        """Those that show the same have the same number, int32 [n]; see `repeats.groups_of`, which takes a while."""
        return groups_of(self.descriptors, centre_of(self.descriptors), self.grid)

    @classmethod
    def of(
        cls, names: tuple[str, ...], descriptors: npt.NDArray[np.floating], zero_shot: Floats, grid: tuple[int, int]
    ) -> References:
        """References without views; descriptors [n, T, P, D] of any precision."""
        halves = descriptors.astype(np.float16)
        return cls(names, halves, zero_shot, grid, halves[:0], np.zeros(0, np.int32))

    def only(self, which: npt.NDArray[np.integer]) -> References:
        """Some of them, in the order given."""
        place = {int(old): new for new, old in enumerate(which)}
        views = [k for k, i in enumerate(self.view_of) if int(i) in place]
        return References(
            tuple(self.names[i] for i in which),
            self.descriptors[which],
            self.zero_shot[which],
            self.grid,
            self.views[views],
            np.array([place[int(self.view_of[k])] for k in views], np.int32),
        )


def fit(
    references: References,
    *,
    descriptor_sha256: str,
    rows: int,
    tiles: TileGrid | None = None,
    seed: int = 0,
    keep: Mask | None = None,
    inside: Mask | None = None,
    note: str = "",
    references_only: bool = False,
) -> ReferenceMemory:
    """Fits a memory to references.

    Args:
        references: At least one.
        descriptor_sha256: Of the bundle that the descriptors come from.
        rows: How many rows it may have at most.
        tiles: How frames were cut.
        seed: Of the choice of rows.
        keep: Which cells may become rows, bool [n, T, P]; None for all. With it, views give none.
        inside: Where maps count, bool [T, H, W]; None for everywhere.
        note: How it was made.
        references_only: Give the zero-shot map no weight: a processor computes that in about half the time.

    Returns:
        The memory with each reference's values out of sample.

    Raises:
        ValueError: There is no reference, or none of its cells may become a row.
    """
    if not len(references):
        raise ValueError("no reference")
    centre = centre_of(references.descriptors)
    raw, image_of = _chosen(references, centre, rows, seed, keep)
    if not len(raw):
        raise ValueError("no cell of the references may become a row")
    maps = out_of_sample(references, centre, rows, seed, keep, references.groups)
    fusion = fusion_of(maps, references.zero_shot, inside, 0 if references_only else ZERO_WEIGHT)
    scores = scores_of(maps, references.zero_shot, fusion, inside)
    return ReferenceMemory(
        rows=raw,
        image_of=image_of,
        centre=centre,
        fusion=fusion,
        descriptor_sha256=descriptor_sha256,
        names=references.names,
        loo_scores=scores,
        loo_peaks=scores.copy(),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        tiles=tiles,
        note=note,
        repeats=_repeats(references.groups, scores),
    )


def centre_of(descriptors: Halves) -> Floats:
    """CENTRING times the mean descriptor of [..., D], float32 [D]."""
    mean = descriptors.reshape(-1, descriptors.shape[-1]).mean(0, dtype=np.float64)
    return np.asarray(CENTRING * mean, np.float32)


def out_of_sample(
    references: References,
    centre: Floats,
    rows: int,
    seed: int = 0,
    keep: Mask | None = None,
    groups: Integers | None = None,
) -> Floats:
    """Smoothed distance maps of references, each by a memory of the others, rows chosen anew.

    With a single reference, or where all show the same, each cell is compared with the others of the same tile, its
    neighbours left out, and the distance is taken ALONE times.

    Args:
        references: At least one.
        centre: Of all of them.
        rows: As `fit` takes it, as `seed` and `keep`.
        seed: Of the choice of rows.
        keep: Which cells may become rows.
        groups: Those that show the same have the same number, int32 [n]; None where no two do.

    Returns:
        float32 [n, T, H, W].
    """
    count, tiles, cells, channels = references.descriptors.shape
    groups = np.arange(count, dtype=np.int32) if groups is None else groups
    height, width = references.zero_shot.shape[2:]
    found = np.empty((count, tiles, cells), np.float32)
    numbers = np.unique(groups)
    for fold in np.array_split(numbers, min(len(numbers), FOLDS)):
        left_out, others = np.flatnonzero(np.isin(groups, fold)), np.flatnonzero(~np.isin(groups, fold))
        raw, _ = _chosen(references.only(others), centre, rows, seed, None if keep is None else keep[others])
        own = references.descriptors[left_out]
        if not len(raw):
            found[left_out] = [ALONE * distances_within(one, centre, references.grid) for one in own]
            continue
        tensors = make_tensors(raw, centre, _PLAIN)
        found[left_out] = nearest(own.reshape(-1, cells, channels), tensors).reshape(own.shape[:3])
    maps = smooth(found.reshape(-1, *references.grid), (height, width))
    return maps.reshape(count, tiles, height, width)


def fusion_of(
    distances: Floats, zero_shot: Floats, inside: Mask | None = None, zero_weight: float = ZERO_WEIGHT
) -> Fusion:
    """The fusion by what good references reach out of sample.

    z = (d - a) / (q - a) + zero_weight * (l - A) / (Q - A + 1) is 0 where a pixel is average and 1 where the distance
    alone is at the QUANTILE; the fused logit is SHARPNESS * (z - 1). a and A are means, q and Q quantiles, of distance
    and zero-shot logit.

    Args:
        distances: Smoothed, out of sample, float32 [n, T, H, W].
        zero_shot: Of the same frames, float32 [n, T, H, W].
        inside: Where maps count, bool [T, H, W].
        zero_weight: Of l beside d, both in units of what good references reach.
    """
    a, q = _level(distances, inside)
    zero_a, zero_q = _level(logits(zero_shot), inside)
    return Fusion(
        gain=SHARPNESS / max(q - a, LEAST_SPREAD),
        offset=a,
        zero_gain=SHARPNESS * zero_weight / (zero_q - zero_a + ZERO_MARGIN),
        zero_offset=zero_a,
        shift=-SHARPNESS,
    )


def scores_of(distances: Floats, zero_shot: Floats, fusion: Fusion, inside: Mask | None = None) -> Floats:
    """Each frame's score, which is its largest map value over all tiles: float32 [n] of [n, T, H, W]."""
    numbers = fusion.numbers()
    found = np.empty(len(distances), np.float32)
    for number, (distance, zero) in enumerate(zip(distances, zero_shot, strict=True)):
        maps, _ = fuse(distance, zero, numbers)
        found[number] = maps.max() if inside is None else maps[inside].max()
    return found


_PLAIN = Fusion(1, 0, 0, 0, 0)


def _repeats(groups: Integers, scores: Floats) -> tuple[int, ...]:
    """Of each group all references but the one whose score is highest."""
    stands = {int(number): int(np.where(groups == number, scores, -1).argmax()) for number in np.unique(groups)}
    return tuple(i for i, number in enumerate(groups) if stands[int(number)] != i)


def _chosen(references: References, centre: Floats, rows: int, seed: int, keep: Mask | None) -> tuple[Halves, Integers]:
    """Raw descriptors that cover those of all references, and whose each is. Only those that are drawn are copied."""
    channels, cells = (
        references.descriptors.shape[-1],
        references.descriptors.shape[1] * references.descriptors.shape[2],
    )
    own, views = references.descriptors.reshape(-1, channels), references.views.reshape(-1, channels)
    allowed = np.arange(len(own) + len(views)) if keep is None else np.flatnonzero(keep)
    drawn = allowed[random_rows(len(allowed), CANDIDATES * rows, seed)]
    first, later = drawn[drawn < len(own)], drawn[drawn >= len(own)] - len(own)
    raw = np.concatenate([own[first], views[later]])
    image_of = np.concatenate([first // cells, references.view_of[later // cells]]).astype(np.int32)
    chosen = greedy_rows(centred(raw, centre), rows, seed)
    return raw[chosen], image_of[chosen]


def _level(values: Floats, inside: Mask | None) -> tuple[float, float]:
    """Mean and QUANTILE of [n, T, H, W] where it counts."""
    counted = values if inside is None else values[:, inside]
    return float(counted.mean(dtype=np.float64)), float(np.quantile(counted, QUANTILE))
