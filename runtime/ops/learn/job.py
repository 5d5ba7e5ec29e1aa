"""Learning from frames that were looked at: what is left out, the memory, its thresholds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.bundle.manifest.schema import Manifest
from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.detect.learning.seen import Seen, takes_memory
from kanoclip.runtime.detect.reference.append import append
from kanoclip.runtime.detect.reference.fit import fit, scores_of
from kanoclip.runtime.detect.reference.foreground import Foreground, find_foreground
from kanoclip.runtime.detect.reference.fused import nearest
from kanoclip.runtime.detect.reference.memory import ReferenceMemory
from kanoclip.runtime.detect.reference.smoothing import smooth
from kanoclip.runtime.detect.reference.unlabelled import Selection, select
from kanoclip.runtime.detect.tiles import Tiling
from kanoclip.runtime.errors import CalibrationError
from kanoclip.runtime.ops.learn.observe import Observed
from kanoclip.runtime.ops.learn.outliers import Outlier, find_outliers
from kanoclip.runtime.types import RegionOfInterest

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Wanted:
    """How to learn.

    Attributes:
        rows: Most rows of the memory; None for as many as the graph takes.
        seed: Of the choice of rows.
        drop_outliers: Leave references out that are unlike the others, which are reported in any case.
        unlabelled: The frames are not known to be good: they score each other first.
        references_only: The zero-shot map has no weight.
    """

    rows: int | None = None
    seed: int = 0
    drop_outliers: bool = False
    unlabelled: bool = False
    references_only: bool = False


@dataclass(frozen=True, eq=False)
class Learned:
    """What came out.

    Attributes:
        memory: The memory.
        observed: All frames that were looked at.
        used: Which of them are references, in order.
        outliers: Those that are unlike the others.
        selection: What is used of unlabelled frames; None for good ones.
    """

    memory: ReferenceMemory
    observed: Observed
    used: npt.NDArray[np.int64]
    outliers: tuple[Outlier, ...]
    selection: Selection | None = None


def learn(
    observed: Observed, wanted: Wanted, manifest: Manifest, tiles: TileGrid | None, inside: Mask | None, note: str
) -> Learned:
    """Learns a memory.

    Args:
        observed: Frames, good ones unless `wanted` says that no one knows.
        wanted: How.
        manifest: Of the bundle, whose graph takes a memory.
        tiles: How frames were cut.
        inside: Where maps count, bool [T, H, W]; None for everywhere.
        note: How it was made, for the file.

    Raises:
        CalibrationError: Nothing is left to learn from.
        MemoryFileError: The graph takes no memory.
    """
    digest, most = takes_memory(manifest)
    references = observed.references
    outliers: list[Outlier] = []
    selection, keep = None, None
    used = np.arange(len(references))
    if wanted.unlabelled:
        selection = select(references.descriptors, references.grid)
        used = np.flatnonzero(selection.frames)
        keep = selection.cells[used]
    else:
        outliers = find_outliers(observed)
        if wanted.drop_outliers:
            used = np.setdiff1d(used, [one.number for one in outliers])
    if not len(used):
        raise CalibrationError("no reference is left: use more good frames of one product")
    memory = fit(
        references if len(used) == len(references) else references.only(used),
        descriptor_sha256=digest,
        rows=min(wanted.rows or most, most),
        tiles=tiles,
        seed=wanted.seed,
        keep=keep,
        inside=inside,
        note=note,
        references_only=wanted.references_only,
    )
    return Learned(memory, observed, used, tuple(outliers), selection)


def grow(memory: ReferenceMemory, observed: Observed, manifest: Manifest, inside: Mask | None) -> Learned:
    """Appends good frames to a memory, one after the other; each is out of sample for the memory before it.

    Args:
        memory: The one before.
        observed: Good frames, cut as the memory's.
        manifest: Of the bundle.
        inside: Where maps count, bool [T, H, W].

    Raises:
        MemoryFileError: The graph takes no memory.
    """
    _, most = takes_memory(manifest)
    references = observed.references
    for name, descriptors, zero_shot in zip(
        references.names, references.descriptors, references.zero_shot, strict=True
    ):
        memory = append(memory, name, descriptors, zero_shot, references.grid, most_rows=most, inside=inside)
    return Learned(memory, observed, np.arange(len(references)), tuple(find_outliers(observed)))


def score(seen: Seen, memory: ReferenceMemory, grid: tuple[int, int], inside: Mask | None) -> float:
    """A frame's score by a memory, in [0, 1]: what a detector gives."""
    height, width = seen.zero_shot.shape[1:]
    cells = nearest(seen.descriptors, memory.tensors())
    maps = smooth(cells.reshape(-1, *grid), (height, width))
    return float(scores_of(maps[None], seen.zero_shot[None], memory.fusion, inside)[0])


def mask_of(roi: RegionOfInterest | None, tiling: Tiling, map_size: tuple[int, int]) -> Mask | None:
    """A region of interest in each tile's map, bool [T, H, W]; None for everywhere.

    Args:
        roi: The region.
        tiling: How frames are cut.
        map_size: (height, width) of a tile's map.

    Raises:
        SettingsError: The region leaves nothing of the image.
    """
    if roi is None:
        return None
    size = map_size if tiling.count == 1 else tiling.canvas
    return np.stack(tiling.split(roi.mask(*size)))


def part_of(observed: Observed) -> Foreground:
    """Where the part is in the frames.

    Raises:
        CalibrationError: Frames are cut into tiles, whose borders are no background.
    """
    descriptors = observed.references.descriptors
    if descriptors.shape[1] > 1:
        raise CalibrationError("--foreground tells a part from the frame's border: leave out --tiles, or draw a --roi")
    return find_foreground(descriptors[:, 0], observed.references.grid)


def named(memory: ReferenceMemory, root: str) -> ReferenceMemory:
    """The memory with names relative to a folder, where they lie below it."""
    prefix = root.rstrip("/") + "/"
    return replace(memory, names=tuple(name.removeprefix(prefix) for name in memory.names))
