"""The parts of a backend's run, for backends that can tell them apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from kanoclip.runtime.engines.inputs import Floats, Frames, Indices


@dataclass(frozen=True)
class Split:
    """Milliseconds of a run by part.

    Attributes:
        upload: To the device; None where nothing is copied, or it cannot be separated from the rest.
        inference: On the device.
        download: Back from it; None as above.
    """

    upload: float | None
    inference: float
    download: float | None


@runtime_checkable
class SplitBackend(Protocol):
    """A backend that can wait for its device after each part. The waits cost time: latency is measured without."""

    def run_split(self, frames: Frames, class_index: Indices | None) -> tuple[Floats, Floats, Split]:
        """As `Backend.run`, with the times of its parts."""
        ...
