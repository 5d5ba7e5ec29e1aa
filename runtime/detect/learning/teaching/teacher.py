"""What a person teaches a stream that runs: "this is fine", "this is bad", and the way back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.bundle.store import check_place, locked
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.learning.limits import limits_by, rate_of
from kanoclip.runtime.detect.learning.live import LiveReferences, utc_now
from kanoclip.runtime.detect.learning.seen import look, score_by, takes_memory
from kanoclip.runtime.detect.learning.teaching.copies import Copies
from kanoclip.runtime.detect.learning.teaching.corrections import (
    bounded,
    digest_of,
    false_alarms,
    image_of,
    png_of,
    ruled,
)
from kanoclip.runtime.detect.learning.teaching.lesson import LearnerSlot, Lessons
from kanoclip.runtime.detect.learning.teaching.taught import Taught
from kanoclip.runtime.detect.preprocess import Prepared
from kanoclip.runtime.detect.reference.append import append
from kanoclip.runtime.detect.reference.memory import Correction, Label, ReferenceMemory
from kanoclip.runtime.detect.settings.settings import Decision
from kanoclip.runtime.engines.base import descriptor_of
from kanoclip.runtime.errors import BundleError, SettingsError
from kanoclip.runtime.types import Image


class Teacher:
    """Corrections of the classes of a stream, one after the other, whoever makes them. For any thread.

    Each one is a step that can be taken back, until it is saved on the way that it came, and then in the bundle.

    Args:
        detector: What scores.
        references: Changes its memories.
        changing: Held during each change of what the detector decides by.
        slot: Where the stream has what learns from its frames.
        use: As `Lessons` takes it.

    Attributes:
        lessons: Learning from the next frames.
    """

    def __init__(
        self,
        detector: Detector,
        references: LiveReferences,
        changing: threading.RLock,
        slot: LearnerSlot,
        use: Callable[[str, ReferenceMemory, Thresholds], None],
    ) -> None:
        self._detector, self._references, self._changing = detector, references, changing
        self._teaching = threading.Lock()
        self._revision = 0
        self._copies = Copies(references)
        self.lessons = Lessons(detector, slot, use, self._count)

    @property
    def revision(self) -> int:
        """How many changes there were."""
        return self._revision

    def takes_memory(self) -> bool:
        """Whether the bundle's graph takes a memory."""
        return self._detector.bundle.manifest.memory is not None

    def prepare(self, image: Image, class_name: str) -> Prepared:
        """A frame as it is scored for a class; see `Detector.prepare`."""
        return self._detector.prepare(image, class_name)

    def memory(self, class_name: str) -> ReferenceMemory | None:
        """What a class is scored by; None for zero-shot."""
        return self._detector.rules.memory_of(class_name)

    def copy_of(self, class_name: str) -> Path | None:
        """The copy of the bundle that a class was saved into; None for none."""
        return self._copies.place(class_name)

    def unsaved(self, class_name: str) -> int:
        """How many of a class's steps are nowhere but in this process."""
        return self._copies.missing(class_name)

    def needs_name(self) -> bool:
        """Whether the bundle cannot be written, so that a save takes a name for a copy."""
        try:
            check_place(self._detector.bundle.root, None)
        except BundleError:
            return True
        return False

    def last(self, class_name: str) -> str:
        """What `undo` takes back, in a few words; empty for nothing."""
        if not self._references.can_undo(class_name) and class_name not in self._detector.bundle.manifest.references:
            return ""
        memory = self._detector.rules.memory_of(class_name)
        if memory is None:
            return "the reset of the memory"
        if memory.corrections:
            one = memory.corrections[-1]
            return f"{one.label.value}: {one.name}"
        return f"learned from {len(memory.names)} references"

    def correct(self, label: Label, name: str, frame: Prepared, class_name: str) -> Taught:
        """Takes a person's word for a frame. It decides from the next frame on, and nothing is written.

        A fine frame that was called anomalous becomes a reference. Then all labelled frames are scored anew, and the
        thresholds give way to those that they would be wrong for; see docs/learn-online.md.

        Args:
            label: What the frame is.
            name: Its file, or source and number.
            frame: As it was scored.
            class_name: What it was scored for.

        Raises:
            SettingsError: The class has no memory, or the frame became a reference as a fine one.
            KanoclipError: The engine failed.
        """
        with self._teaching:
            old = self._memory_to_teach(class_name)
            sha256 = digest_of(frame)
            others = self._others(old, label, sha256)
            score = score_by(old, self._detector, frame, class_name)
            threshold = self._detector.thresholds_of(class_name).image
            wrong = (score >= threshold) == (label is Label.FINE)
            memory, reference = old, None
            if wrong and label is Label.FINE:
                memory, reference = self._grown(old, name, frame, class_name), len(old.names)
            size = frame.height, frame.width
            one = Correction(label, name, sha256, utc_now(), score, threshold, score, reference, png_of(frame), size)
            # All of them: the memory may be another one, and so may the region that they are scored in.
            corrections = tuple(self._scored(each, memory, class_name) for each in bounded([*others, one]))
            memory = replace(memory, corrections=corrections)
            start, chosen = self._start(memory, class_name)
            thresholds = ruled(start, memory)
            with self._changing:
                if self._detector.rules.memory_of(class_name) is not old:
                    raise SettingsError(f"the memory of {class_name} was changed meanwhile: try it again")
                self._references.use(class_name, memory, thresholds, Decision())
                in_use = self._detector.thresholds_of(class_name)
                overridden = (in_use.image, in_use.pixel) != (thresholds.image, thresholds.pixel)
                if overridden:  # by a flag or the file: what was corrected now must hold now
                    decision = Decision(threshold=thresholds.image, pixel_threshold=thresholds.pixel)
                    self._detector.rules.decide_by(self._detector.rules.settings.choosing(class_name, decision))
            self._count()
            last = corrections[-1]
            return Taught(
                last,
                thresholds.image,
                wrong,
                (last.score >= thresholds.image) == (label is Label.BAD),
                (false_alarms(old, threshold), false_alarms(memory, thresholds.image)),
                int(memory.counted.sum()),
                overridden and not chosen,
                tuple(
                    each
                    for each in corrections[:-1]
                    if each.image and (each.score >= thresholds.image) != (each.label is Label.BAD)
                ),
            )

    def undo(self, class_name: str) -> list[Correction]:
        """Takes the last step back: what was scored by before it, to the bit.

        One that is not saved yet is gone with that; of those that are, the bundle's memory and thresholds before it
        come back, in the bundle too.

        Returns:
            The corrections that are gone with it.

        Raises:
            SettingsError: There is nothing to take back.
            BundleError: The bundle cannot be written; nothing is changed.
        """
        # Streams without a memory need no safetensors.
        from kanoclip.runtime.detect.reference.stored.history import undo

        with self._teaching, self._changing:
            old = self._detector.rules.memory_of(class_name)
            if self._references.can_undo(class_name):
                self._references.undo(class_name)
            else:
                root = self._detector.bundle.root
                if class_name not in self._detector.bundle.manifest.references:
                    raise SettingsError(f"nothing to undo: {class_name} is scored as at the start")
                check_place(root, None)
                with locked(root):
                    undo(self._detector.bundle.reread(), class_name)
                settings = self._detector.rules.settings.without_choice(class_name)
                self._detector.rules.decide_by(settings, self._detector.bundle.reread())
            self._count()
            new = self._detector.rules.memory_of(class_name)
            stay = set() if new is None else {(one.sha256, one.label) for one in new.corrections}
            gone = () if old is None else old.corrections
            return [one for one in gone if (one.sha256, one.label) not in stay]

    def save(self, class_name: str, output: Path | None = None) -> Path:
        """Writes a class's steps since the last save, each with the way back.

        Args:
            class_name: Whose.
            output: Folder for a copy of a bundle that cannot be written; None for the bundle itself, or for the copy
                that was made before.

        Returns:
            The folder of the bundle that has them.

        Raises:
            SettingsError: The class has no memory.
            BundleError: It cannot be written; what is in use stays in use, and what is saved stays saved.
        """
        with self._teaching, self._changing:
            copy = self._copies.place(class_name)
            if output is None and self.needs_name() and copy is not None:
                self._copies.bring_up(class_name)
                place = copy
            elif output is None:
                place = self._references.save(class_name, None)
            else:
                place = self._copies.make(class_name, output)
            self._count()
            return place

    def _memory_to_teach(self, class_name: str) -> ReferenceMemory:
        takes_memory(self._detector.bundle.manifest)
        memory = self._detector.rules.memory_of(class_name)
        if memory is None:
            raise SettingsError(
                f"{class_name} has no reference memory, which corrections go into: learn it from good frames first"
            )
        return memory

    def _others(self, memory: ReferenceMemory, label: Label, sha256: str) -> list[Correction]:
        """The corrections but for one of the same frame.

        Raises:
            SettingsError: It has that label already, or became a reference that would have to go.
        """
        for one in memory.corrections:
            if one.sha256 == sha256 and one.label is label:
                raise SettingsError(f"{one.name} is labelled {label.value} already")
            if one.sha256 == sha256 and one.reference is not None:
                raise SettingsError(f"{one.name} became a reference as a fine frame: undo that step first")
        return [one for one in memory.corrections if one.sha256 != sha256]

    def _grown(self, old: ReferenceMemory, name: str, frame: Prepared, class_name: str) -> ReferenceMemory:
        bundle = self._detector.bundle
        seen = look(self._detector, frame, class_name)
        _, most = takes_memory(bundle.manifest)
        _, inside = self._detector.rules.region_of(class_name)
        grid = descriptor_of(bundle).grid
        return append(old, name, seen.descriptors, seen.zero_shot, grid, most_rows=most, inside=inside)

    def _scored(self, one: Correction, memory: ReferenceMemory, class_name: str) -> Correction:
        if not one.image:
            return one
        frame = self._detector.prepare(image_of(one), class_name, one.size)
        return replace(one, score=score_by(memory, self._detector, frame, class_name))

    def _start(self, memory: ReferenceMemory, class_name: str) -> tuple[Thresholds, bool]:
        """What the thresholds would be without corrections, and whether somebody chose them while the stream ran."""
        own, now = self._references.thresholds(class_name), self._detector.thresholds_of(class_name)
        choice = self._detector.rules.settings.chosen.get(class_name, Decision())
        chosen = (choice.threshold, choice.pixel_threshold) != (None, None)
        if (own.image, own.pixel) != (now.image, now.pixel):
            origin = f"chosen while a stream ran, {utc_now()}"
            return replace(own, image=now.image, pixel=now.pixel, origin=origin, roi=None), chosen
        rate = rate_of(own)
        if rate is None:
            return own, chosen
        roi, _ = self._detector.rules.region_of(class_name)
        return limits_by(memory, own, roi, self._detector.backend.name, utc_now(), rate), chosen

    def _count(self) -> None:
        self._revision += 1
