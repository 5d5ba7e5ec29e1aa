"""References that are added to a detector's memories while it scores, with a way back."""

from __future__ import annotations

import threading
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from kanoclip.runtime.bundle.manifest.parts import HISTORY, Thresholds
from kanoclip.runtime.bundle.store import check_place, locked
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.learning.limits import RATE, limits_by, rate_of
from kanoclip.runtime.detect.learning.seen import Seen, look, references_of, takes_memory
from kanoclip.runtime.detect.preprocess import Prepared
from kanoclip.runtime.detect.reference.append import append
from kanoclip.runtime.detect.reference.fit import fit
from kanoclip.runtime.detect.reference.memory import ReferenceMemory
from kanoclip.runtime.detect.reference.stored.read import Own
from kanoclip.runtime.detect.settings.settings import Decision
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


@dataclass(frozen=True, slots=True)
class _Before:
    """What a class was scored by before a change.

    Attributes:
        file: The bundle's memory of it at that time; None for none.
        own: What was over that; None for nothing.
        choice: The thresholds that were chosen by hand.
    """

    file: str | None
    own: Own | None
    choice: Decision


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
        # By class: what it was scored by before each change.
        self._before: defaultdict[str, list[_Before]] = defaultdict(list)

    def count(self, class_name: str) -> MemoryCount:
        """The size of a class's memory.

        Raises:
            FrameError: The class is unknown.
        """
        return MemoryCount.of(self._detector.rules.memory_of(class_name))

    def saved(self, class_name: str) -> bool:
        """Whether a new start would score the class by the same memory.

        Raises:
            FrameError: The class is unknown.
        """
        return self._detector.rules.own_memory(class_name) is None

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
        seen = look(self._detector, frame, class_name)  # inference, during which other changes are welcome
        with self._adding:
            while True:
                old = self._detector.rules.memory_of(class_name)
                memory = self._grown(old, name, seen, class_name)  # the first one takes a while
                with self._changing:
                    if self._detector.rules.memory_of(class_name) is old:
                        self.use(class_name, memory, self._set_anew(memory, old is None, class_name))
                        return MemoryCount.of(memory)

    def use(
        self,
        class_name: str,
        memory: ReferenceMemory | None,
        thresholds: Thresholds | None = None,
        choice: Decision | None = None,
    ) -> None:
        """As `Rules.use_memory`, with a way back.

        Args:
            class_name: Whose.
            memory: The memory; None for none.
            thresholds: Those that belong to it; None for those that the class has.
            choice: What is chosen over them from now on; None for what is chosen now.
        """
        with self._changing:
            settings, own = self._detector.rules.settings, self._detector.rules.own_memory(class_name)
            before = _Before(self._file(class_name), own, settings.chosen.get(class_name, Decision()))
            if thresholds is None and own is not None:
                thresholds = own.thresholds
            if choice is not None:
                settings = settings.without_choice(class_name).choosing(class_name, choice)
            self._detector.rules.use_own(class_name, Own(memory, thresholds), settings)
            self._before[class_name] = [*self._live(class_name), before][-HISTORY:]

    def can_undo(self, class_name: str) -> bool:
        """Whether there is a change that is not saved."""
        with self._changing:
            return bool(self._live(class_name))

    def steps(self, class_name: str) -> list[tuple[ReferenceMemory, Thresholds]]:
        """The memories since the bundle's own, each with its thresholds: what a save writes, oldest first."""
        with self._changing:
            live = self._live(class_name)
            if not live:
                return []
            given = [one.own for one in live[1:]] + [self._detector.rules.own_memory(class_name)]
            bundles = self._detector.bundle.manifest.thresholds_of(class_name)
            found = [(own.memory, own.thresholds or bundles) for own in given if own is not None and own.memory]
            if found and given[-1] is not None and given[-1].memory is not None:
                found[-1] = given[-1].memory, self._in_use(class_name)
            return found

    def undo(self, class_name: str) -> MemoryCount:
        """Takes the last change back.

        Raises:
            SettingsError: There was none since the start, or since the memory was saved or read again.
        """
        with self._changing:
            earlier = self._live(class_name)
            if not earlier:
                self._before[class_name].clear()
                raise SettingsError(
                    f"nothing to undo: no reference of {class_name} was added since the memory was saved or read; "
                    "kanoclip-learn --undo goes back in the bundle"
                )
            last = earlier[-1]
            self._before[class_name] = earlier[:-1]
            choice = replace(last.choice, roi=None)  # a region that was drawn since stays
            settings = self._detector.rules.settings.without_choice(class_name).choosing(class_name, choice)
            self._detector.rules.use_own(class_name, last.own, settings)
            return self.count(class_name)

    def reset(self, class_name: str) -> MemoryCount:
        """Scores a class without a memory again, by the thresholds from before it.

        Raises:
            SettingsError: It has none.
            MemoryFileError: The bundle's first memory of the class cannot be read.
        """
        # Streams without a memory need no safetensors.
        from kanoclip.runtime.detect.reference.stored.history import thresholds_without

        with self._changing:
            if self._detector.rules.memory_of(class_name) is None:
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
        from kanoclip.runtime.detect.reference.stored.history import put_steps  # as in `reset`

        with self._changing:
            memory, root = self._detector.rules.memory_of(class_name), self._detector.bundle.root
            if memory is None:
                raise SettingsError(f"{class_name} has no memory to save: add a reference, or use --warm-up")
            if output is None and self.saved(class_name):
                return root
            check_place(root, output)
            with locked(root) if output is None else nullcontext():
                bundle = self._detector.bundle.reread()
                steps = self.steps(class_name) or [(memory, self._in_use(class_name))]
                place = put_steps(bundle, output, class_name, steps)
            if output is None:
                self._detector.rules.decide_by(self._detector.rules.settings, self._detector.bundle.reread())
                self._before[class_name].clear()  # these steps are the bundle's by now
            return place

    def _grown(self, old: ReferenceMemory | None, name: str, seen: Seen, class_name: str) -> ReferenceMemory:
        bundle = self._detector.bundle
        digest, most = takes_memory(bundle.manifest)
        grid = descriptor_of(bundle).grid
        _, inside = self._detector.rules.region_of(class_name)
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
        base = self.thresholds(class_name)
        rate = RATE if first else rate_of(base)
        if rate is None:
            return None
        roi, _ = self._detector.rules.region_of(class_name)
        return limits_by(memory, base, roi, self._detector.backend.name, utc_now(), rate)

    def _live(self, class_name: str) -> list[_Before]:
        """What can be taken back: nothing where the bundle has another memory by now.

        And nothing once that memory is undone: what was taken back with it would come again.
        """
        found = self._before[class_name]
        if found and found[-1].file != self._file(class_name):
            found.clear()
        return found

    def thresholds(self, class_name: str) -> Thresholds:
        """Those that belong to what a class is scored by; what settings have over them is left out."""
        own = self._detector.rules.own_memory(class_name)
        if own is not None and own.thresholds is not None:
            return own.thresholds
        return self._detector.bundle.manifest.thresholds_of(class_name)

    def _in_use(self, class_name: str) -> Thresholds:
        """Those to save: with what was chosen over them."""
        base, now = self.thresholds(class_name), self._detector.thresholds_of(class_name)
        if (base.image, base.pixel) == (now.image, now.pixel):
            return base
        origin = f"chosen while a stream ran, {utc_now()}"
        return replace(base, image=now.image, pixel=now.pixel, origin=origin, roi=None)

    def _file(self, class_name: str) -> str | None:
        info = self._detector.bundle.manifest.references.get(class_name)
        return None if info is None else info.file


def utc_now() -> str:
    """The time as a memory has it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
