"""Frames as the graph sees them: descriptors and zero-shot maps, of a source or of one frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.parts import IN_GRAPH
from kanoclip.runtime.bundle.manifest.schema import Manifest
from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.bundle.store import with_tiles
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.learning.seen import Seen, look, references_of, thumbnail
from kanoclip.runtime.detect.reference.fit import References
from kanoclip.runtime.detect.tiles import WHOLE, Tiling, auto_grid
from kanoclip.runtime.engines.base import descriptor_of
from kanoclip.runtime.errors import CalibrationError
from kanoclip.runtime.sources import Source
from kanoclip.runtime.types import BadFrame, Image

MOST_BYTES = 1 << 29
"""Of descriptors that are held at a time: 680 frames of 1,024 cells and 384 channels."""
MOST_FRAMES = 256
"""References by default: more of them hardly make a better memory, and kanoclip-calibrate takes any number."""
FLIPS, ROTATIONS = "flips", "rotations"
VIEWS = (FLIPS, ROTATIONS)


@dataclass(frozen=True, eq=False)
class Observed:
    """The frames of a source.

    Attributes:
        references: What the graph sees of them.
        sizes: (height, width) of each frame in pixels.
        thumbnails: Each frame, made small.
        skipped: Frames that could not be read.
    """

    references: References
    sizes: tuple[tuple[int, int], ...]
    thumbnails: tuple[Image, ...]
    skipped: tuple[BadFrame, ...]

    def only(self, which: npt.NDArray[np.integer]) -> Observed:
        """Some of the frames, in the order given."""
        return replace(
            self,
            references=self.references.only(which),
            sizes=tuple(self.sizes[i] for i in which),
            thumbnails=tuple(self.thumbnails[i] for i in which),
        )


def plain(bundle: Bundle) -> Bundle:
    """The bundle without memories and tiles: a detector that is made of it gives zero-shot maps of what it is given."""
    return replace(bundle, manifest=replace(bundle.manifest, tiles=None, references={}))


def suited_tiles(manifest: Manifest, height: int, width: int) -> TileGrid | None:
    """The tiles that suit a frame's aspect; None for the whole frame, as where the graph resizes frames itself.

    Args:
        manifest: Of the bundle.
        height: Of the frame, in pixels.
        width: Of the frame, in pixels.
    """
    if manifest.preprocessing.resize == IN_GRAPH:
        return None
    found = auto_grid(height, width, manifest.model.image_size)
    return None if found.count == 1 else found


class Observer:
    """Looks at frames with a detector of a `plain` bundle, whose tiles it sets.

    Args:
        detector: Of a `plain` bundle, without a region of interest; its tiles change.
        class_name: One of its classes.
        tiles: How frames are cut; None for whole frames.
        views: Which of VIEWS are taken of each reference too.
    """

    def __init__(
        self, detector: Detector, class_name: str, tiles: TileGrid | None = None, views: tuple[str, ...] = ()
    ) -> None:
        self._detector, self._class_name, self._views = detector, class_name, views
        self.grid = descriptor_of(detector.bundle).grid
        cut = replace(detector.bundle, manifest=with_tiles(detector.bundle, tiles))
        detector.rules.decide_by(detector.rules.settings, cut)

    @property
    def tiles(self) -> TileGrid | None:
        """How frames are cut, as a manifest has it."""
        return self._detector.bundle.manifest.tiles

    @property
    def tiling(self) -> Tiling:
        """How frames are cut; the whole frame is a single tile."""
        return Tiling(self.tiles or WHOLE, self._detector.bundle.manifest.model.image_size)

    def look(self, image: Image, views: bool = True) -> Seen:
        """Looks at one frame.

        Args:
            image: uint8 [H, W, 3], BGR, any size.
            views: Whether the views are taken too.

        Raises:
            FrameError: It is no such array, or too small for its tiles.
            BackendError: The engine failed.
        """
        seen = look(self._detector, self._detector.prepare(image, self._class_name), self._class_name)
        turned = [self._detector.describe([view]) for view in views_of(image, self._views if views else ())]
        return replace(seen, views=np.array(turned, np.float16).reshape(-1, *seen.descriptors.shape))


def observe(
    source: Source,
    observer: Observer,
    *,
    most: int | None = None,
    on_frame: Callable[[int, int | None], None] | None = None,
) -> Observed:
    """Looks at a source to its end, and closes it.

    Args:
        source: Of good frames.
        observer: What looks.
        most: Stop after so many frames that could be read; None for as many as memory holds.
        on_frame: Called after each frame with how many there were, and how many there will be if that is known.

    Raises:
        CalibrationError: No frame could be read, or there are more than fit into MOST_BYTES.
        KanoclipError: The source or the engine failed.
    """
    seen: list[Seen] = []
    names: list[str] = []
    sizes: list[tuple[int, int]] = []
    thumbnails: list[Image] = []
    skipped: list[BadFrame] = []
    total = min((n for n in (source.count, most) if n is not None), default=None)
    try:
        for item in source.frames():
            if isinstance(item, BadFrame):
                skipped.append(item)
                continue
            seen.append(observer.look(item.image))
            names.append(item.source if source.root is not None else f"{item.source}, frame {item.index}")
            sizes.append((item.image.shape[0], item.image.shape[1]))
            thumbnails.append(thumbnail(item.image))
            _check_room(seen)
            if on_frame is not None:
                on_frame(len(seen), total)
            if most is not None and len(seen) >= most:
                break
    finally:
        source.close()
    if not seen:
        why = f" ({skipped[0].source}: {skipped[0].reason})" if skipped else ""
        raise CalibrationError(f"{source.name}: no frame in it can be read{why}: name a folder of good images")
    return Observed(references_of(names, seen, observer.grid), tuple(sizes), tuple(thumbnails), tuple(skipped))


def views_of(image: Image, kinds: tuple[str, ...]) -> Iterator[Image]:
    """The frame mirrored (FLIPS: left to right, top to bottom) and turned (ROTATIONS: by 90, 180 and 270 degrees)."""
    if FLIPS in kinds:
        yield np.ascontiguousarray(image[:, ::-1])
        yield np.ascontiguousarray(image[::-1])
    if ROTATIONS in kinds:
        for quarters in (1, 2, 3):
            yield np.ascontiguousarray(np.rot90(image, quarters))


def _check_room(seen: list[Seen]) -> None:
    one = seen[0]
    each = one.descriptors.nbytes + one.views.nbytes
    if len(seen) * each > MOST_BYTES:
        raise CalibrationError(
            f"more than {MOST_BYTES // each} references of this size do not fit into memory: use fewer with "
            "--max-frames or --every"
        )
