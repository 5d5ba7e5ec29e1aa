"""Warm-up: the first frames of a line score each other, and what they have in common becomes the class's memory.

Meanwhile frames are scored zero-shot. The fit runs in a thread of its own: no frame waits for it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.learning.seen import look, takes_memory, thumbnail
from kanoclip.runtime.detect.learning.warmed_up import LookedAt, WarmedUp, learned_from
from kanoclip.runtime.detect.preprocess import Prepared
from kanoclip.runtime.detect.reference.memory import ReferenceMemory
from kanoclip.runtime.engines.base import descriptor_of
from kanoclip.runtime.errors import KanoclipError, SettingsError, one_line
from kanoclip.runtime.types import Image

log = logging.getLogger(__name__)

LEAST_FRAMES = 3
"""Of fewer, no frame can be told apart from the others."""
MOST_BYTES = 1 << 30
"""Of descriptors and maps that are held until there are enough frames."""


class FrameLearner(Protocol):
    """What learns from frames while they are scored, such as a `WarmUp`."""

    def look(self, name: str, frame: Prepared, image: Image, class_name: str | None) -> None:
        """Takes a frame that has just been scored; in the thread that scored it, and without an error."""
        ...

    def learning(self, class_name: str) -> bool:
        """Whether it takes, or waits for, frames of a class."""
        ...


@dataclass(eq=False)
class _Collection:
    """The frames of one class, as far as they have come.

    Attributes:
        reserved: Frames that are here or on their way.
        seen: The frames that were looked at, by their number.
        closed: Set once no more are taken.
    """

    reserved: int = 0
    seen: dict[int, LookedAt] = field(default_factory=dict)
    closed: threading.Event = field(default_factory=threading.Event)


def check_warm_up(detector: Detector, class_name: str, frames: int) -> None:
    """Refuses a warm-up that cannot work, before a stream is opened for it.

    Args:
        detector: What scores.
        class_name: The class looked for at first.
        frames: How many frames it takes.

    Raises:
        MemoryFileError: The bundle's graph takes no memory.
        SettingsError: The class has a memory already, or the frames are too few, or too many for this machine's memory.
    """
    bundle = detector.bundle
    takes_memory(bundle.manifest)
    if detector.rules.memory_of(class_name) is not None:
        raise SettingsError(
            f"{bundle.root} has a memory of {class_name} already: leave out --warm-up, or run kanoclip-learn --undo"
        )
    check_room(detector, frames)


def check_room(detector: Detector, frames: int) -> None:
    """Refuses a number of frames that is too small to learn from, or too large for this machine's memory.

    Raises:
        MemoryFileError: The bundle's graph takes no memory.
        SettingsError: The number makes no sense.
    """
    bundle = detector.bundle
    takes_memory(bundle.manifest)
    if frames < LEAST_FRAMES:
        raise SettingsError(f"a warm-up of {frames} frames: it takes {LEAST_FRAMES} at least")
    info, (height, width) = descriptor_of(bundle), bundle.manifest.model.image_size
    tiles = 1 if bundle.manifest.tiles is None else bundle.manifest.tiles.count
    each = tiles * (2 * info.cells * info.channels + 4 * height * width)
    if frames * each > MOST_BYTES:
        raise SettingsError(f"a warm-up of {frames} frames does not fit into memory: use {MOST_BYTES // each} at most")


class WarmUp:
    """Learns each class that is looked for from the first frames that are scored for it. For use by several threads.

    Args:
        detector: What scores.
        frames: How many frames of a class it takes.
        use: Has a class scored by a memory with its thresholds from the next frame on.
        on_learned: Called in the thread of the fit after that, such as to save what was learned.
        on_failed: Called with the class and a line where nothing was learned of it.
        only: The one class that is learned, even if it has a memory already; None for all that have none.
        good: Somebody vouches for the frames: none is left out.
    """

    def __init__(
        self,
        detector: Detector,
        frames: int,
        use: Callable[[str, ReferenceMemory, Thresholds], None],
        on_learned: Callable[[WarmedUp], None] | None = None,
        *,
        on_failed: Callable[[str, str], None] = lambda name, why: None,
        only: str | None = None,
        good: bool = False,
    ) -> None:
        self._detector, self._frames, self._use, self._on_learned = detector, frames, use, on_learned
        self._on_failed, self._only, self._good = on_failed, only, good
        self._collections: dict[str, _Collection] = {}
        self._fits: list[threading.Thread] = []
        self._lock = threading.Lock()

    def look(self, name: str, frame: Prepared, image: Image, class_name: str | None) -> None:
        """Takes a frame that has just been scored, while there are not enough. An error ends the class's warm-up.

        Args:
            name: Of the frame.
            frame: As it was scored.
            image: The frame itself, or a smaller one, uint8 [H, W, 3].
            class_name: What it was scored for; None for the bundle's first class.
        """
        known = class_name or self._detector.bundle.manifest.classes[0]
        if self._only not in (None, known):
            return
        with self._lock:
            collection = self._collections.get(known)
            if collection is None:
                collection = self._collections[known] = _Collection()
                # Someone may have learned the class by other means meanwhile.
                if self._only is None and self._detector.rules.memory_of(known) is not None:
                    collection.closed.set()
            if collection.closed.is_set() or collection.reserved == self._frames:
                return
            number = collection.reserved
            collection.reserved += 1
        try:
            seen = look(self._detector, frame, known)
        except KanoclipError as error:
            with self._lock:
                first = not collection.closed.is_set()
                collection.closed.set()
                collection.seen.clear()
            if first:
                self._failed(known, str(error))
            return
        size = frame.height, frame.width
        with self._lock:
            if collection.closed.is_set():
                return
            collection.seen[number] = LookedAt(name, seen, size, thumbnail(image, size))
            if len(collection.seen) < self._frames:
                return
            collection.closed.set()
            thread = threading.Thread(
                target=self._learn, args=(known, collection), name=f"kanoclip-warm-up-{known}", daemon=True
            )
            self._fits.append(thread)
            thread.start()

    def learning(self, class_name: str) -> bool:
        """See `FrameLearner.learning`."""
        with self._lock:
            collection = self._collections.get(class_name)
            if collection is None:
                return self._only == class_name or (
                    self._only is None and self._detector.rules.memory_of(class_name) is None
                )
            return not collection.closed.is_set()

    def taken(self, class_name: str) -> int:
        """How many frames of a class were looked at."""
        with self._lock:
            collection = self._collections.get(class_name)
            return 0 if collection is None else len(collection.seen)

    def cancel(self, class_name: str) -> bool:
        """Takes no more frames of a class; nothing is learned of it.

        Returns:
            False where there are enough of them already, and the fit goes on.
        """
        with self._lock:
            collection = self._collections.setdefault(class_name, _Collection())
            if collection.closed.is_set():
                return False
            collection.closed.set()
            collection.seen.clear()
            return True

    def finish(self) -> None:
        """The stream has ended: waits for a fit that is going on, and logs what was not learned for want of frames."""
        for thread in self._fits:
            thread.join()
        for name, collection in self._collections.items():
            if not collection.closed.is_set():
                log.warning(
                    "warm-up: the run ended after %d of %d frames of %s: nothing was learned",
                    len(collection.seen),
                    self._frames,
                    name,
                )
        if not self._collections:
            log.warning("warm-up: the run ended before its first frame: nothing was learned")

    def _learn(self, class_name: str, collection: _Collection) -> None:
        """The thread of a fit. Whatever error comes, the line goes on."""
        try:
            found = learned_from(list(collection.seen.values()), self._detector, class_name, good=self._good)
            self._use(class_name, found.memory, found.thresholds)
        except Exception as error:
            self._failed(class_name, one_line(error))
            return
        finally:
            collection.seen.clear()
        log.info("%s", found.sentence())
        if self._on_learned is None:
            return
        try:
            self._on_learned(found)
        except Exception as error:
            log.warning("warm-up: the memory of %s is in use all the same: %s", class_name, one_line(error))

    def _failed(self, class_name: str, why: str) -> None:
        stays = "zero-shot ones" if self._detector.rules.memory_of(class_name) is None else "those by the memory before"
        log.warning("warm-up of %s failed, and its scores stay %s: %s", class_name, stays, why)
        self._on_failed(class_name, why)
