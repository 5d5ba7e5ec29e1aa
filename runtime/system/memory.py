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
    """Tells glibc to serve frame-sized buffers from its arenas and to hold up to 256 MiB of it.

    By default the memory of a 1080p frame (6 MB) goes back and comes anew, zeroed page by page: 350 to 770 page faults
    and 0.8 to 1.7 ms of a 5.7 to 6.6 ms JPEG decode, measured on one core. No size is too large for that: with
    images of 12 megapixels (36 MB) the faults were a fifth of the whole run's time. Called by the command line only;
    a program that embeds `Detector` decides for itself.

    Returns:
        Whether this system's allocator could be set (Linux with glibc).
    """
    return _tell(M_MMAP_MAX, 0) and _tell(M_TRIM_THRESHOLD, HELD_BYTES)


def share_heap() -> bool:
    """Tells glibc to serve all threads from one arena; left alone it makes up to eight for each core.

    Each arena holds what its threads once needed at the same time, so that many of them hold more, and only the first
    gives back all that is spare. One costs a stream no speed (docs/streams.md): it asks for few and large pieces. To be
    called before threads are started.

    Returns:
        Whether this system's allocator could be set (Linux with glibc).
    """
    return _tell(M_ARENA_MAX, 1)


def give_back_spare_memory() -> None:
    """Hands what is free in glibc's arenas by now back to the system: 23 MB after OpenVINO has compiled a graph."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def _tell(parameter: int, value: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has no mallopt
        return False
    return bool(mallopt(parameter, value))


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
