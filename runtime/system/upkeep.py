"""What a stream that runs for months does by the clock, so that its memory stays what it was in the first minute.

**Cyclic garbage**: every request to the page or the health checks makes some. Left alone, CPython collects the oldest
generation only once there is a quarter as much in it as there was at the last time, and a loaded program is large: not
within an hour at 5 frames a second, while what waits to be collected grows by 2 to 3 MB. So what is loaded for good is
taken out of the collections, which makes a full one cheap, and there is one every `COLLECTED_EVERY_S` seconds.

**Spare memory**: what glibc's heap was once asked for at the same time stays with it, since the buffers of frames are
kept there. The start asks for most: so what nobody uses goes back after the first round, and then now and again.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

from kanoclip.runtime.system.memory import give_back_spare_memory

COLLECTED_EVERY_S = 30.0
"""A full collection: 26 ms the first time, then 0.07 ms."""
GIVEN_BACK_EVERY_S = 3600.0
"""0.4 to 3 ms, and frames' buffers are mapped anew after it, which the next few frames wait for."""


class Upkeep:
    """Keeps a stream's memory in order; a run that ends before the first round has none.

    Args:
        clock: Monotonic seconds.
        give_back: Hands spare memory to the system.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, give_back: Callable[[], None] = give_back_spare_memory
    ) -> None:
        self._clock = clock
        self._give_back = give_back
        self._collect_at = clock() + COLLECTED_EVERY_S
        self._give_back_at = self._collect_at
        self._frozen = False

    def tick(self, *_: object) -> None:
        """Called all the time by one thread."""
        if self._clock() < self._collect_at:
            return
        gc.collect()
        if not self._frozen:
            # After the first frames: by now modules, the engine and the page are loaded. What is frozen is still freed
            # by its reference count; only cycles in it never are.
            gc.freeze()
            self._frozen = True
        if self._clock() >= self._give_back_at:
            self._give_back()
            self._give_back_at = self._clock() + GIVEN_BACK_EVERY_S
        self._collect_at = self._clock() + COLLECTED_EVERY_S
