"""How glibc's allocator serves a stream: frame buffers stay in the process, and its threads share one heap."""

from __future__ import annotations

import contextlib
import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
KEPT = 1 << 28


def keep_frame_buffers() -> bool:
    """Tells glibc to serve frame-sized buffers from its heap and to keep up to 256 MiB of it.

    By default the memory of a 1080p frame (6 MB) goes back and comes anew, zeroed page by page: 350 to 770 page faults
    and 0.8 to 1.7 ms of a 5.7 to 6.6 ms JPEG decode, measured on one core. No size is too large for that: with
    pictures of 12 megapixels (36 MB) the faults were a fifth of the whole run's time. Called by the command line only;
    a program that embeds `Detector` decides for itself.

    Returns:
        Whether this system's allocator could be told (Linux with glibc).
    """
    return _tell(M_MMAP_MAX, 0) and _tell(M_TRIM_THRESHOLD, KEPT)


def share_heap() -> bool:
    """Tells glibc to serve all threads from one heap; left alone it makes up to eight for each core.

    Each heap keeps what its threads once needed at the same time, so that many of them keep more, and only the first
    gives back all that is spare. One costs a stream no speed (docs/streams.md): it asks for few and large pieces. To be
    called before threads are started.

    Returns:
        Whether this system's allocator could be told (Linux with glibc).
    """
    return _tell(M_ARENA_MAX, 1)


def give_back_spare_memory() -> None:
    """Hands what is free on glibc's heap by now back to the system: 23 MB after OpenVINO has compiled a graph."""
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
