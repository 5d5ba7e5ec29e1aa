"""Copies of a bundle that cannot be written, class by class: which steps of a stream they have, and the others."""

from __future__ import annotations

from pathlib import Path

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.bundle.store import locked
from kanoclip.runtime.detect.learning.live import LiveReferences
from kanoclip.runtime.detect.reference.memory import ReferenceMemory

Steps = list[tuple[ReferenceMemory, Thresholds]]


class Copies:
    """The copy of each class that was saved into one. For one thread at a time.

    Args:
        references: Has the steps that are in use.
    """

    def __init__(self, references: LiveReferences) -> None:
        self._references = references
        self._made: dict[str, tuple[Path, Steps]] = {}

    def place(self, class_name: str) -> Path | None:
        """A class's copy; None for none."""
        found = self._made.get(class_name)
        return None if found is None else found[0]

    def missing(self, class_name: str) -> int:
        """How many of a class's steps are in no copy."""
        steps = self._references.steps(class_name)
        return len(steps) - _common(steps, self._made[class_name][1] if class_name in self._made else [])

    def make(self, class_name: str, root: Path) -> Path:
        """Writes a class's steps into a new copy, and its folder is returned.

        Raises:
            SettingsError: The class has no memory.
            BundleError: It cannot be written.
        """
        steps = self._references.steps(class_name)
        place = self._references.save(class_name, root)
        self._made[class_name] = root, steps
        return place

    def bring_up(self, class_name: str) -> None:
        """Brings a copy to what is in use: back over steps that were undone since, and on by those that are new.

        Raises:
            BundleError: It cannot be written.
            KeyError: The class has no copy.
        """
        # Streams without a memory need no safetensors.
        from kanoclip.runtime.detect.reference.stored.history import put_steps, undo

        root, saved = self._made[class_name]
        steps = self._references.steps(class_name)
        common = _common(steps, saved)
        back = len(saved) - (0 if not common else 1 + _position(saved, steps[common - 1]))
        with locked(root):
            for _ in range(back):
                undo(Bundle.open(root), class_name)
            if steps[common:]:
                put_steps(Bundle.open(root), None, class_name, steps[common:])
        self._made[class_name] = root, steps


def _position(steps: Steps, step: tuple[ReferenceMemory, Thresholds]) -> int:
    return next((at for at, one in enumerate(steps) if one[0] is step[0]), -1)


def _common(steps: Steps, saved: Steps) -> int:
    """How many of the steps are saved: up to the last one that is in both, since those before it are its history."""
    return max((at + 1 for at, step in enumerate(steps) if _position(saved, step) >= 0), default=0)
