"""The last frames of a source that browsers were shown, whole: what a person points at may have gone by meanwhile."""

from __future__ import annotations

import threading
from collections import OrderedDict

from kanoclip.runtime.types import Detection, Frame

MOST, MOST_BYTES = 24, 32 << 20
"""Frames of a source that are held; the newest one however large it is."""


class Shown:
    """For any thread. A frame that is frozen stays until another one is frozen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frames: OrderedDict[int, tuple[Frame, Detection]] = OrderedDict()
        self._frozen: tuple[int, Frame, Detection] | None = None

    def put(self, number: int, frame: Frame, detection: Detection) -> None:
        """Holds a frame that is about to be shown; `number` is of the source's scored frames."""
        with self._lock:
            self._frames[number] = frame, detection
            size = sum(one.image.nbytes for one, _ in self._frames.values())
            while len(self._frames) > 1 and (len(self._frames) > MOST or size > MOST_BYTES):
                size -= self._frames.popitem(last=False)[1][0].image.nbytes

    def get(self, number: int) -> tuple[Frame, Detection] | None:
        """A frame that was shown; None where it has gone by."""
        with self._lock:
            if self._frozen is not None and self._frozen[0] == number:
                return self._frozen[1:]
            return self._frames.get(number)

    def freeze(self, number: int) -> bool:
        """Holds a frame for as long as a person needs; False where it has gone by."""
        with self._lock:
            found = self._frames.get(number)
            if found is not None:
                self._frozen = number, *found
            return found is not None or (self._frozen is not None and self._frozen[0] == number)
