"""Python's cyclic garbage, collected by the clock: a stream that runs for months makes some with every request.

Left alone, CPython collects the oldest generation only once there is a quarter as much in it as there was at the last
time, and a loaded program is large: not within an hour at 5 frames a second, while what waits to be collected grows by
2 to 3 MB. So what is loaded for good is taken out of the collections, which makes a full one cheap, and there is one
every `EVERY_S` seconds.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

EVERY_S = 30.0


class GarbageRounds:
    """Collects while a stream runs; a run that ends before the first round has none.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = clock() + EVERY_S
        self._frozen = False

    def tick(self, *_: object) -> None:
        """Called all the time by one thread."""
        if self._clock() < self._next:
            return
        gc.collect()
        if not self._frozen:
            # After the first frames: by now modules, the engine and the page are loaded. What is frozen is still freed
            # by its reference count; only cycles in it never are.
            gc.freeze()
            self._frozen = True
        self._next = self._clock() + EVERY_S
