"""Reports once that something does not work, and once that it works again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Outage:
    """What is wrong with an output, and whether it was reported. For use by several threads.

    Args:
        name: What the messages call the output.
        notify: Takes each message.
        meanwhile: What the stream does with results until it works: the end of the first message.

    Attributes:
        words: What is wrong now; None while all is well.
    """

    def __init__(self, name: str, notify: Callable[[str], None], meanwhile: str) -> None:
        self._name = name
        self._notify = notify
        self._meanwhile = meanwhile
        self.words: str | None = None
        self._since = 0.0
        self._dropped_before = 0
        self._lock = threading.Lock()

    def begin(self, words: str, dropped: int) -> None:
        """Something is wrong, perhaps as before.

        Args:
            words: What is wrong. `words` holds the newest; only the first of an outage is reported.
            dropped: Results dropped before it.
        """
        with self._lock:
            first = self.words is None
            self.words = words
            if first:
                self._since = time.monotonic()
                self._dropped_before = dropped
        if first:
            self._notify(f"{self._name}: {words}; {self._meanwhile}")

    def end(self, dropped: int) -> None:
        """It works, perhaps as before.

        Args:
            dropped: Results dropped until now.
        """
        if self.words is None:
            return
        with self._lock:
            over, self.words = self.words is not None, None
            lasted = time.monotonic() - self._since
            missed = dropped - self._dropped_before
        if over:
            self._notify(f"{self._name}: works again after {lasted:.0f} s; results dropped meanwhile: {missed}")
