"""Learning a class from the next frames of a stream that runs, begun and called off while it does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.learning.warm_up import FrameLearner, WarmUp, check_room
from kanoclip.runtime.detect.learning.warmed_up import WarmedUp
from kanoclip.runtime.detect.reference.memory import ReferenceMemory
from kanoclip.runtime.errors import SettingsError


class LearnerSlot(Protocol):
    """Where a stream has what learns from its frames."""

    @property
    def learner(self) -> FrameLearner | None:
        """What gets every frame after it was scored; None for nothing."""
        ...

    def learn_by(self, learner: FrameLearner | None) -> None:
        """Gives it every frame from the next one on."""
        ...


@dataclass(frozen=True, slots=True)
class LessonState:
    """How far a lesson is.

    Attributes:
        class_name: What is learned.
        taken: Frames that were looked at.
        frames: How many it takes.
        going: Whether it goes on; after that, `message` says what came of it.
        message: In a line; empty while it goes on.
        failed: Whether the message is an error's.
    """

    class_name: str
    taken: int
    frames: int
    going: bool
    message: str = ""
    failed: bool = False


class Lessons:
    """One lesson at a time. Frames are looked at in the threads that score them, and the fit has one of its own.

    Args:
        detector: What scores.
        slot: The stream's.
        use: As `WarmUp` takes it.
        changed: Called when a lesson has ended, from any thread.
    """

    def __init__(
        self,
        detector: Detector,
        slot: LearnerSlot,
        use: Callable[[str, ReferenceMemory, Thresholds], None],
        changed: Callable[[], None],
    ) -> None:
        self._detector, self._slot, self._use, self._changed = detector, slot, use, changed
        self._lock = threading.RLock()
        self._learner: WarmUp | None = None
        self._before: FrameLearner | None = None
        self._state: LessonState | None = None

    def state(self) -> LessonState | None:
        """The lesson that goes on, or the last one; None before the first."""
        with self._lock:
            now, learner = self._state, self._learner
            if now is None or learner is None or not now.going:
                return now
            return LessonState(now.class_name, learner.taken(now.class_name), now.frames, going=True)

    def begin(self, class_name: str, frames: int, *, good: bool) -> LessonState:
        """Learns a class from the next frames that are scored for it, whether it has a memory or not.

        Args:
            class_name: What is looked for.
            frames: How many.
            good: Somebody vouches that all are good: none is left out.

        Raises:
            SettingsError: Another lesson or a warm-up goes on, or the number makes no sense.
            MemoryFileError: The bundle's graph takes no memory.
        """
        with self._lock:
            if self._state is not None and self._state.going:
                raise SettingsError(f"{self._state.class_name} is being learned already: wait, or cancel that")
            before = self._slot.learner
            if before is not None and before.learning(class_name):
                raise SettingsError(f"the warm-up of {class_name} goes on: wait until it has its frames")
            check_room(self._detector, frames)
            self._learner = WarmUp(
                self._detector,
                frames,
                self._use,
                lambda found: self._ended(found.class_name, _sentence(found), failed=False),
                on_failed=lambda name, why: self._ended(name, f"nothing was learned of {name}: {why}", failed=True),
                only=class_name,
                good=good,
            )
            self._before, self._state = before, LessonState(class_name, 0, frames, going=True)
            self._slot.learn_by(self._learner)
            return self._state

    def cancel(self) -> LessonState:
        """Learns nothing after all.

        Raises:
            SettingsError: Nothing is being learned, or the frames are there and the fit goes on.
        """
        with self._lock:
            if self._state is None or self._learner is None or not self._state.going:
                raise SettingsError("nothing is being learned at present")
            name = self._state.class_name
            if not self._learner.cancel(name):
                raise SettingsError(f"the frames of {name} are there, and it is learned in a moment: undo it then")
            self._ended(name, "cancelled: nothing was learned", failed=False)
            assert self._state is not None
            return self._state

    def _ended(self, class_name: str, message: str, *, failed: bool) -> None:
        with self._lock:
            if self._state is None or self._learner is None or not self._state.going:
                return
            taken = self._state.frames if not failed else self._learner.taken(class_name)
            self._state = LessonState(
                class_name, taken, self._state.frames, going=False, message=message, failed=failed
            )
            if self._slot.learner is self._learner:
                self._slot.learn_by(self._before)
            self._learner = self._before = None
        self._changed()


def _sentence(found: WarmedUp) -> str:
    count, out = len(found.references), len(found.left_out)
    left = (
        ""
        if not out
        else f"; left out, as unlike the others: {', '.join(found.left_out[:5])}"
        + (f" and {out - 5} more" if out > 5 else "")
    )
    repeats, different = len(found.memory.repeats), found.memory.different
    alike = f"; {repeats} show what others show, and they count as {different}: let the line run" if repeats else ""
    return (
        f"{found.class_name} is learned from {count - out} of {count} frames{left}{alike}; the threshold is "
        f"{found.thresholds.image:.3f}"
    )
