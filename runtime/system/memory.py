"""Memory of a stream that runs for months: glibc's allocator at the start, upkeep by the clock after it.

Cyclic garbage is collected by `Upkeep`, off the frame's path, and what the allocator has free goes back now and then.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import time
from collections.abc import Callable

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
HELD_BYTES = 1 << 28


def keep_frame_buffers() -> bool:
    """Has glibc serve frame-sized buffers from its arenas, and hold up to 256 MiB of free memory.

    By default the memory of a 1080p frame (6 MB) is freed and mapped anew, zeroed page by page: 350 to 770 page faults
    and 0.8 to 1.7 ms of a 5.7 to 6.6 ms JPEG decode, measured on one core. The same holds for every
    size: with images of 12 megapixels (36 MB) the faults were a fifth of the whole run's time. Only the command line
    calls this; a program that embeds `Detector` decides for itself.

    Returns:
        Whether this system's allocator could be set (Linux with glibc).
    """
    return _set(M_MMAP_MAX, 0) and _set(M_TRIM_THRESHOLD, HELD_BYTES)


def share_arena() -> bool:
    """Has glibc serve all threads from one arena; by default it makes up to eight for each core.

    Each arena holds the most that its threads ever needed at one time, so that many arenas hold more memory. Only the
    first one gives all its free memory back. A single arena costs a stream no speed (docs/streams.md), since a stream
    makes few and large allocations. Call this before threads are started.

    Returns:
        Whether this system's allocator could be set (Linux with glibc).
    """
    return _set(M_ARENA_MAX, 1)


def give_back_spare_memory() -> None:
    """Gives the free memory of glibc's arenas back to the system: 23 MB after OpenVINO has compiled a graph."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def _set(parameter: int, value: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has no mallopt
        return False
    return bool(mallopt(parameter, value))


COLLECTED_EVERY_S = 30.0
"""A full collection takes 26 ms the first time, then 0.07 ms."""
GIVEN_BACK_EVERY_S = 3600.0
"""It takes 0.4 to 3 ms. After it the buffers are mapped anew, which delays the next few frames."""


class Upkeep:
    """Keeps a stream's memory in order; a run that ends before the first round has none.

    Args:
        clock: Monotonic seconds.
        give_back: Gives spare memory back to the system.
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
        """Does what is due; called again and again by one thread."""
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
