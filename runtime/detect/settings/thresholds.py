"""A class's thresholds: the bundle's, with the settings over them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.detect.settings.settings import Decision
from kanoclip.runtime.engines.inputs import MemoryTensors
from kanoclip.runtime.types import Mask, RegionOfInterest

log = logging.getLogger(__name__)

UNKEPT = (
    "thresholds of class %s were calibrated inside of another region of interest, so their false-alarm rate does not "
    "hold: run kanoclip-calibrate again"
)


@dataclass(frozen=True)
class Limits:
    """Of one class.

    Attributes:
        thresholds: For scores, maps and areas.
        roi: The region of interest; None for the whole image.
        mask: Its pixels in a map.
        memory: The reference memory; None for none.
    """

    thresholds: Thresholds
    roi: RegionOfInterest | None
    mask: Mask | None
    memory: MemoryTensors | None = None

    @property
    def peak_weight(self) -> float:
        """What the map's largest value counts in the score: all of it with a memory, half of it without (eq. 12)."""
        return 0.5 if self.memory is None else 1.0


def decided(given: Thresholds, decision: Decision) -> Thresholds:
    """A class's thresholds with what a decision sets over them."""
    own = (decision.threshold, decision.pixel_threshold, decision.min_area)
    return replace(
        given,
        image=given.image if decision.threshold is None else decision.threshold,
        pixel=given.pixel if decision.pixel_threshold is None else decision.pixel_threshold,
        min_area=given.min_area if decision.min_area is None else decision.min_area,
        origin=given.origin if own == (None, None, None) else "set by the caller",
    )


def limits_of(bundle: Bundle, class_name: str, decision: Decision, memory: MemoryTensors | None = None) -> Limits:
    """The thresholds of a class.

    Args:
        bundle: Whose.
        class_name: One of its classes.
        decision: What is set over the bundle's own.
        memory: The class's reference memory.

    Raises:
        SettingsError: The region leaves nothing of the image.
    """
    thresholds = decided(bundle.manifest.thresholds_of(class_name), decision)
    mask = None if decision.roi is None else decision.roi.mask(*bundle.manifest.map_size)
    return Limits(thresholds, decision.roi, mask, memory)


def promised(given: Thresholds, decision: Decision) -> bool:
    """Whether calibrated thresholds keep their false-alarm rate in the region that is used."""
    inside = None if decision.roi is None else decision.roi.digest()
    used = decision.threshold is None or decision.pixel_threshold is None
    return not used or given.roi in (None, inside)


def unkept_promises(
    bundle: Bundle, decisions: Mapping[str, Decision], reported: Set[tuple[str, str | None]]
) -> set[tuple[str, str | None]]:
    """Warns of classes whose calibrated thresholds promise nothing, for another region than theirs is used.

    Args:
        bundle: Whose thresholds.
        decisions: By class.
        reported: What the last call returned; that is not reported again.

    Returns:
        Each such class with the digest of the region that is used.
    """
    found = set()
    for name, decision in decisions.items():
        if not promised(bundle.manifest.thresholds_of(name), decision):
            found.add((name, None if decision.roi is None else decision.roi.digest()))
    for name, _ in sorted(found - reported, key=str):
        log.warning(UNKEPT, name)
    return found
