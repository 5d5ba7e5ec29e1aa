"""Results of threads that finish in any order, handed on in the order of their numbers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class InOrder(Generic[T]):
    """Holds what comes too early until its turn.

    A thread that brings a result early goes on to its next work. The thread that brings the result that is due hands on
    all that waited for it. Only a thread that is far ahead waits: this bounds the memory, however slow another one is.

    Args:
        hand_on: Called with one thing at a time; other threads wait meanwhile.
        ahead: By how many numbers a thread may be ahead of what is due, at least 1.
    """

    def __init__(self, hand_on: Callable[[T], None], ahead: int) -> None:
        if ahead < 1:
            raise ValueError(f"{ahead} ahead: at least 1, or nobody could bring what is due")
        self._hand_on = hand_on
        self._ahead = ahead
        self._early: dict[int, T] = {}
        self._due = 0
        self._aborted = False
        self._changed = threading.Condition()

    def put(self, number: int, thing: T) -> None:
        """Brings one thing; numbers start at 0, and each comes once.

        Raises:
            Exception: What `hand_on` raises. Nothing is handed on after that.
        """
        with self._changed:
            self._changed.wait_for(lambda: number - self._due < self._ahead or self._aborted)
            self._early[number] = thing
            while self._due in self._early and not self._aborted:
                # The lock is held meanwhile: this preserves the order, and a slow sink must hold every thread up.
                try:
                    self._hand_on(self._early.pop(self._due))
                except BaseException:
                    self._aborted = True
                    raise
                finally:
                    self._due += 1
                    self._changed.notify_all()

    def abort(self) -> None:
        """Hands nothing on any more, and wakes whoever waits."""
        with self._changed:
            self._aborted = True
            self._early.clear()
            self._changed.notify_all()
