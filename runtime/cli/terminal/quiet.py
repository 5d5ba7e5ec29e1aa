"""Keeping libraries off standard error."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def native_chatter_silenced(active: bool = True) -> Iterator[None]:
    """Sends what C and C++ libraries write to standard error nowhere, while Python's own writing stays visible.

    OpenCV, FFmpeg, libjpeg and Qt each write warnings of their own for every camera that is missing or image that is
    damaged; this project reports those itself, in one line. Nothing is redirected when standard error is no real file
    (as under some test runners).

    Args:
        active: False leaves everything as it is, for debugging.
    """
    try:
        number = sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):
        active = False
        number = -1
    if not active:
        yield
        return
    before = sys.stderr
    before.flush()
    original = os.dup(number)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with os.fdopen(os.dup(original), "w", encoding=before.encoding, errors="backslashreplace", buffering=1) as visible:
        os.dup2(nowhere, number)
        sys.stderr = visible
        # What $PYTHONFAULTHANDLER asks for, tracebacks of a crash or of a watchdog's SIGABRT, is Python's own writing.
        faults = faulthandler.is_enabled()
        if faults:
            faulthandler.enable(visible)
        try:
            yield
        finally:
            sys.stderr = before
            if faults:
                faulthandler.enable(before)
            os.dup2(original, number)
            os.close(original)
            os.close(nowhere)
