"""What comes of the frames of a warm-up: they score each other, and the rest is fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.learning.limits import limits_by
from kanoclip.runtime.detect.learning.seen import Seen, references_of, takes_memory
from kanoclip.runtime.detect.reference.fit import References, fit
from kanoclip.runtime.detect.reference.memory import ReferenceMemory
from kanoclip.runtime.detect.reference.unlabelled import Selection, every, select
from kanoclip.runtime.engines.base import descriptor_of
from kanoclip.runtime.types import Image

MOST_NAMES = 10
"""Frames that the log names as left out."""


@dataclass(frozen=True, slots=True, eq=False)
class LookedAt:
    """A frame of a warm-up.

    Attributes:
        name: Its own.
        seen: What the graph sees of it.
        size: (height, width) in pixels.
        thumbnail: The frame made small, uint8 [h, w, 3].
    """

    name: str
    seen: Seen
    size: tuple[int, int]
    thumbnail: Image


@dataclass(frozen=True, eq=False)
class WarmedUp:
    """What came of the frames of a class.

    Attributes:
        class_name: The class.
        memory: Made of the frames that are used.
        thresholds: By the same frames, each out of sample.
        references: All frames, used or not, in the order in which they were scored.
        selection: Which of them are used, and which of their cells.
        sizes: (height, width) of each in pixels.
        thumbnails: Each made small.
    """

    class_name: str
    memory: ReferenceMemory
    thresholds: Thresholds
    references: References
    selection: Selection
    sizes: tuple[tuple[int, int], ...]
    thumbnails: tuple[Image, ...]

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of the frames that are not used, the most suspicious first."""
        out = np.flatnonzero(~self.selection.frames)
        return tuple(self.references.names[i] for i in out[np.argsort(-self.selection.peaks[out], kind="stable")])

    def sentence(self) -> str:
        """What a person wants to know of it, in a line."""
        names, count = self.left_out, len(self.references)
        more = f"; and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        listed = f" ({'; '.join(names[:MOST_NAMES])}{more})" if names else ""
        cells, of = self.selection.cells_left_out, self.selection.cells[self.selection.frames].size
        frames = "1 frame" if len(names) == 1 else f"{len(names)} frames"
        rate = self.thresholds.origin.partition(" by ")[0]
        repeats = len(self.memory.repeats)
        alike = f"{repeats} show what others show, and they count as {self.memory.different}; " if repeats else ""
        return (
            f"warm-up: learned {self.class_name} from {count - len(names)} of {count} frames; left out: "
            f"{frames}{listed} and {cells} of {of} patches of the others; {alike}"
            f"the memory has {len(self.memory.rows)} rows, and the threshold is {self.thresholds.image:.3f} ({rate})"
        )


def learned_from(frames: Sequence[LookedAt], detector: Detector, class_name: str, *, good: bool) -> WarmedUp:
    """Learns a class of frames, by its region of interest.

    Args:
        frames: In any order.
        detector: What looked at them.
        class_name: What they were scored for.
        good: Somebody vouches for the frames: none is left out.

    Raises:
        CalibrationError: No threshold would tell good frames from bad ones.
        MemoryFileError: The graph takes no memory.
    """
    bundle, engine = detector.bundle, detector.backend.name
    digest, rows = takes_memory(bundle.manifest)
    # By name: in which order two threads have looked at frames is chance, and what is learned should not be.
    ordered = sorted(frames, key=lambda one: one.name)
    grid = descriptor_of(bundle).grid
    references = references_of([one.name for one in ordered], [one.seen for one in ordered], grid)
    roi, inside = detector.rules.region_of(class_name)
    selection = every(references.descriptors) if good else select(references.descriptors, references.grid)
    used = np.flatnonzero(selection.frames)
    memory = fit(
        references.only(used),
        descriptor_sha256=digest,
        rows=rows,
        tiles=bundle.manifest.tiles,
        keep=None if good else selection.cells[used],
        inside=inside,
        note=f"{'vouched for' if good else 'warm-up of'} {len(frames)} frames, {engine}",
    )
    before = bundle.manifest.thresholds_of(class_name)
    thresholds = limits_by(memory, before, roi, engine, memory.created)
    sizes, thumbnails = tuple(one.size for one in ordered), tuple(one.thumbnail for one in ordered)
    return WarmedUp(class_name, memory, thresholds, references, selection, sizes, thumbnails)
