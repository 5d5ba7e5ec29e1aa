"""References that are added to a detector's memories while it scores, with a way back."""

from __future__ import annotations

import threading
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from kanoclip.runtime.bundle.manifest import HISTORY, Thresholds
from kanoclip.runtime.bundle.store import check_place, locked
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.learning.limits import RATE, limits_by, rate_of
from kanoclip.runtime.detect.learning.seen import Seen, references_of, takes_memory
from kanoclip.runtime.detect.preprocess import Prepared
from kanoclip.runtime.detect.reference.append import append
from kanoclip.runtime.detect.reference.fit import fit
from kanoclip.runtime.detect.reference.memory import ReferenceMemory
from kanoclip.runtime.detect.reference.read import Own
from kanoclip.runtime.engines.base import descriptor_of
from kanoclip.runtime.errors import SettingsError

FROM_OUTSIDE = "a frame given while the stream ran"
"""The name of a reference that is no frame of the stream."""


@dataclass(frozen=True, slots=True)
class MemoryCount:
    """How large the memory of a class is; all zero without one.

    Attributes:
        references: Good frames that it was made of.
        rows: Descriptors that it holds of them.
    """

    references: int = 0
    rows: int = 0

    @classmethod
    def of(cls, memory: ReferenceMemory | None) -> MemoryCount:
        """That of a memory; None for none."""
        return cls() if memory is None else cls(len(memory.names), len(memory.rows))


class LiveReferences:
    """Changes a detector's memories from the next frame on. Nothing is written before `save`. For any thread.

    Args:
        detector: What scores.
        changing: Held during each change of what the detector decides by; nothing else may change it meanwhile.
    """

    def __init__(self, detector: Detector, changing: threading.RLock | None = None) -> None:
        self._detector = detector
        self._changing = changing or threading.RLock()
        self._adding = threading.Lock()
        # By class: what it was scored by before each change, and the bundle's file at that time.
        self._before: defaultdict[str, list[tuple[str | None, Own | None]]] = defaultdict(list)

    def count(self, class_name: str) -> MemoryCount:
        """The size of a class's memory.

        Raises:
            FrameError: The class is unknown.
        """
        return MemoryCount.of(self._detector.memory_of(class_name))

    def saved(self, class_name: str) -> bool:
        """Whether a new start would score the class by the same memory.

        Raises:
            FrameError: The class is unknown.
        """
        return self._detector.own_memory(class_name) is None

    def add(self, name: str, frame: Prepared, class_name: str) -> MemoryCount:
        """Adds a good frame to a class's memory; the first one makes the memory.

        Thresholds that were set by references are set anew; others stay.

        Args:
            name: Of the frame.
            frame: What `Detector.prepare` made.
            class_name: What it shows.

        Raises:
            FrameError: The class is unknown, or the frame was prepared for other tiles.
            MemoryFileError: The bundle's graph takes no memory.
            BackendError: The engine failed.
            CalibrationError: No threshold would tell good frames from bad ones.
        """
        takes_memory(self._detector.bundle.manifest)
        seen = self._detector.look(frame, class_name)  # inference, during which other changes are welcome
        with self._adding:
            while True:
                old = self._detector.memory_of(class_name)
                memory = self._grown(old, name, seen, class_name)  # the first one takes a while
                with self._changing:
                    if self._detector.memory_of(class_name) is old:
                        self.use(class_name, memory, self._set_anew(memory, old is None, class_name))
                        return MemoryCount.of(memory)

    def use(self, class_name: str, memory: ReferenceMemory | None, thresholds: Thresholds | None = None) -> None:
        """As `Detector.use_memory`, with a way back."""
        with self._changing:
            state = self._file(class_name), self._detector.own_memory(class_name)
            self._detector.use_memory(class_name, memory, thresholds)
            self._before[class_name] = [*self._before[class_name], state][-HISTORY:]

    def undo(self, class_name: str) -> MemoryCount:
        """Takes the last change back.

        Raises:
            SettingsError: There was none since the start, or since the memory was saved or read again.
        """
        with self._changing:
            earlier = self._before[class_name]
            if not earlier or earlier[-1][0] != self._file(class_name):
                earlier.clear()
                raise SettingsError(
                    f"nothing to undo: no reference of {class_name} was added since the memory was saved or read; "
                    "kanoclip-learn --undo goes back in the bundle"
                )
            _, own = earlier.pop()
            self._detector.use_own(class_name, own)
            return self.count(class_name)

    def reset(self, class_name: str) -> MemoryCount:
        """Scores a class without a memory again, by the thresholds from before it.

        Raises:
            SettingsError: It has none.
            MemoryFileError: The bundle's first memory of the class cannot be read.
        """
        # Streams without a memory need no safetensors.
        from kanoclip.runtime.detect.reference.history import thresholds_without

        with self._changing:
            if self._detector.memory_of(class_name) is None:
                raise SettingsError(f"{class_name} has no memory: its scores are zero-shot ones already")
            self.use(class_name, None, thresholds_without(self._detector.bundle, class_name))
            return MemoryCount()

    def save(self, class_name: str, output: Path | None = None) -> Path:
        """Writes a class's memory and its thresholds of now; the bundle's memory before goes into its history.

        Args:
            class_name: Whose.
            output: Folder for a copy of the bundle; None for the bundle itself.

        Returns:
            The folder of the bundle that has it.

        Raises:
            SettingsError: The class has no memory.
            BundleError: The bundle belongs to the package, is being changed, or cannot be written; nothing is changed.
        """
        from kanoclip.runtime.detect.reference.history import put  # as in `reset`

        with self._changing:
            memory, root = self._detector.memory_of(class_name), self._detector.bundle.root
            if memory is None:
                raise SettingsError(f"{class_name} has no memory to save: add a reference, or use --warm-up")
            if output is None and self.saved(class_name):
                return root
            check_place(root, output)
            with locked(root) if output is None else nullcontext():
                bundle = self._detector.bundle.reread()
                place = put(bundle, output, class_name, memory, self._in_use(class_name))
            if output is None:
                self._detector.decide_by(self._detector.settings, self._detector.bundle.reread())
            return place

    def _grown(self, old: ReferenceMemory | None, name: str, seen: Seen, class_name: str) -> ReferenceMemory:
        bundle = self._detector.bundle
        digest, most = takes_memory(bundle.manifest)
        grid = descriptor_of(bundle).grid
        _, inside = self._detector.region_of(class_name)
        if old is not None:
            return append(old, name, seen.descriptors, seen.zero_shot, grid, most_rows=most, inside=inside)
        return fit(
            references_of([name], [seen], grid),
            descriptor_sha256=digest,
            rows=most,
            tiles=bundle.manifest.tiles,
            inside=inside,
            note=f"added while a stream ran, {self._detector.backend.name}",
        )

    def _set_anew(self, memory: ReferenceMemory, first: bool, class_name: str) -> Thresholds | None:
        """Thresholds with one more reference; None where those before stay."""
        base = self._thresholds(class_name)
        rate = RATE if first else rate_of(base)
        if rate is None:
            return None
        roi, _ = self._detector.region_of(class_name)
        return limits_by(memory, base, roi, self._detector.backend.name, _now(), rate)

    def _thresholds(self, class_name: str) -> Thresholds:
        """Those that belong to what a class is scored by; what settings have over them is left out."""
        own = self._detector.own_memory(class_name)
        if own is not None and own.thresholds is not None:
            return own.thresholds
        return self._detector.bundle.manifest.thresholds_of(class_name)

    def _in_use(self, class_name: str) -> Thresholds:
        """Those to save: with what was chosen over them."""
        base, now = self._thresholds(class_name), self._detector.thresholds_of(class_name)
        if (base.image, base.pixel) == (now.image, now.pixel):
            return base
        origin = f"chosen while a stream ran, {_now()}"
        return replace(base, image=now.image, pixel=now.pixel, origin=origin, roi=None)

    def _file(self, class_name: str) -> str | None:
        info = self._detector.bundle.manifest.references.get(class_name)
        return None if info is None else info.file


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
