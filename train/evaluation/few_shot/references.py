"""References of a category: how they are drawn, what the graph sees of them, and the memory that they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.bundle.manifest.schema import Manifest
from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.learning.seen import references_of, takes_memory
from kanoclip.runtime.detect.reference.fit import References, fit
from kanoclip.runtime.detect.reference.memory import ReferenceMemory
from kanoclip.runtime.detect.reference.unlabelled import select
from kanoclip.runtime.errors import DataError
from kanoclip.runtime.ops.learn.observe import Observer, plain, suited_tiles
from kanoclip.runtime.sources.files.reading import AS_IT_IS, Reading
from kanoclip.train.data.images import read_image
from kanoclip.train.data.types import Category, Sample

LEFT = 2
"""Good images that stay to be measured where a category has few."""


@dataclass(frozen=True)
class Protocol:
    """What a draw is.

    Attributes:
        frames: How many references; with `share`, how many frames of a line.
        draws: How often they are drawn.
        share: Of the frames that are anomalous, though no one says which; None for good references.
        rate: False-alarm rate that each memory's threshold is set for, or the best that the references allow.
        tiles: How frames are cut; `auto` by the references' aspect, None for not at all.
        seed: Of the first draw.
        references_only: The zero-shot map has no weight.
    """

    frames: int
    draws: int = 5
    share: float | None = None
    rate: float = 0.05
    tiles: TileGrid | str | None = None
    seed: int = 0
    references_only: bool = False


def draw_references(
    category: Category, own: Category | None, protocol: Protocol, rng: np.random.Generator
) -> tuple[list[Sample], list[Sample]]:
    """References, and what is left to be measured."""
    source = list(category.samples if own is None else own.samples)
    good = [sample for sample in source if not sample.anomalous]
    bad = [sample for sample in source if sample.anomalous]
    reserve = LEFT if own is None else 0
    most = len(good) - reserve
    if most < 1:
        raise DataError(f"{category.name} has {len(good)} good images: too few to draw references from")
    wanted_bad = 0 if protocol.share is None else round(protocol.share * protocol.frames)
    picks = list(rng.choice(len(good), min(protocol.frames - wanted_bad, most), replace=False))
    drawn = [good[i] for i in picks]
    if wanted_bad:
        drawn += [bad[i] for i in rng.choice(len(bad), min(wanted_bad, max(len(bad) - LEFT, 0)), replace=False)]
        drawn = [drawn[i] for i in rng.permutation(len(drawn))]
    taken = {sample.image for sample in drawn}
    return drawn, [sample for sample in category.samples if sample.image not in taken]


def observed(
    detector: Detector,
    words: str,
    drawn: Sequence[Sample],
    tiles: TileGrid | str | None,
    reading: Reading = AS_IT_IS,
) -> tuple[References, TileGrid | None]:
    """What the graph sees of references, and how they were cut.

    Args:
        detector: Of the bundle; it is left as it is.
        words: One of its classes.
        drawn: The references.
        tiles: A grid, `auto` for the one that suits their aspect, None for whole images.
        reading: How they are read.

    Raises:
        DataError: An image cannot be read.
        KanoclipError: The engine failed.
    """
    images = [read_image(sample.image, reading) for sample in drawn]
    if isinstance(tiles, str):
        height, width = np.median([image.shape[:2] for image in images], axis=0)
        tiles = suited_tiles(detector.bundle.manifest, round(height), round(width))
    observer = Observer(Detector(plain(detector.bundle), detector.backend), words, tiles)
    names = [sample.image.name for sample in drawn]
    return references_of(names, [observer.look(image) for image in images], observer.grid), observer.tiles


def learned(references: References, manifest: Manifest, protocol: Protocol, seed: int) -> tuple[ReferenceMemory, int]:
    """The memory, and how many frames were left out of it."""
    keep: npt.NDArray[np.bool_] | None = None
    left_out = 0
    if protocol.share is not None:
        chosen = select(references.descriptors, references.grid)
        used = np.flatnonzero(chosen.frames)
        left_out = len(references) - len(used)
        references, keep = references.only(used), chosen.cells[used]
    digest, rows = takes_memory(manifest)
    memory = fit(
        references,
        descriptor_sha256=digest,
        rows=rows,
        tiles=manifest.tiles,
        seed=seed,
        keep=keep,
        references_only=protocol.references_only,
    )
    return memory, left_out
