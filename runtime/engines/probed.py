"""What a probe's process does; `probe.py`, which starts it, names it on its command line.

It is a module of its own because it needs the choice of engines, which needs the probe.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.engines import create_backend
from kanoclip.runtime.engines.base import Backend
from kanoclip.runtime.engines.reference import Reference
from kanoclip.runtime.errors import BackendError, KanoclipError, one_line

LOADS = 2
"""Loads of the engine in a probe: the second is from OpenVINO's cache, as all later starts are."""


def main(arguments: Sequence[str]) -> NoReturn:
    """The probe itself: exits with 0, or with 1 after one line that says what is wrong."""
    root, name, device, threads, workers = arguments
    try:
        bundle = Bundle.open(root)
        reference = Reference(bundle)
        for _ in range(LOADS):
            check(reference, create_backend(bundle, name, device, int(threads) or None, workers=int(workers)))
    except KanoclipError as error:
        sys.exit(one_line(error))
    sys.exit(0)


def check(reference: Reference, backend: Backend) -> None:
    """Runs a bundle's images on an engine, and closes it. How far its answers drift is for the trial to find.

    Raises:
        BackendError: It failed, or gave numbers that are not finite.
    """
    try:
        answers = reference.run(backend)
    finally:
        backend.close()
    if not all(np.isfinite(one).all() for one in (*answers.maps, *answers.scores)):
        raise BackendError(f"{backend.name} gives NaN or infinity")
