"""A value that is made at its first use, and once, however many threads want it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """Makes a value when it is first asked for.

    Args:
        make: Makes it; where it raises, the next use tries again.

    Examples:
        >>> found = Once(lambda: print("made") or 7)
        >>> found.value + found.value
        made
        14
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make, self._made, self._lock = make, False, threading.Lock()

    @property
    def value(self) -> T:
        """The value. Other threads wait while it is made."""
        if not self._made:
            with self._lock:
                if not self._made:
                    self._value = self._make()
                    self._made = True
        return self._value
