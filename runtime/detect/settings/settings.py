"""Settings that verdicts depend on, beside the bundle's thresholds: for every class, for one, and by flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from kanoclip.runtime.detect.alarm import AlarmRule
from kanoclip.runtime.errors import SettingsError
from kanoclip.runtime.types import RegionOfInterest

LARGEST_AREA = (1 << 31) - 1
"""Pixels; no image has more."""


@dataclass(frozen=True)
class Decision:
    """Settings that verdicts depend on. None leaves a setting to the level below, in the end to the bundle.

    Attributes:
        threshold: Score from which a frame is anomalous, in [0, 1].
        pixel_threshold: Map value from which a pixel belongs to a region, in [0, 1].
        min_area: Smallest region in pixels of the original frame.
        roi: Where images are scored.
        alarm: When the stream's alarm is raised.

    Raises:
        SettingsError: A number is out of range.
    """

    threshold: float | None = None
    pixel_threshold: float | None = None
    min_area: int | None = None
    roi: RegionOfInterest | None = None
    alarm: AlarmRule | None = None

    def __post_init__(self) -> None:
        for name, value in (("threshold", self.threshold), ("pixel threshold", self.pixel_threshold)):
            if value is not None and not 0 <= value <= 1:
                raise SettingsError(f"{name} {value} is outside of 0 to 1")
        if self.min_area is not None and self.min_area < 0:
            raise SettingsError(f"smallest area {self.min_area} is negative")
        if self.min_area is not None and self.min_area > LARGEST_AREA:
            raise SettingsError(f"smallest area is over {LARGEST_AREA} pixels, which no image has")

    def overridden(self, by: Decision) -> Decision:
        """This decision, overridden by all that the other one sets."""
        given = {f.name: getattr(by, f.name) for f in dataclasses.fields(by) if getattr(by, f.name) is not None}
        return dataclasses.replace(self, **given)


@dataclass(frozen=True)
class Settings:
    """Everything that was set; each attribute overrides those before it.

    Attributes:
        common: For every class: `[decision]` of the file.
        classes: For one class: `[class.NAME]` of the file.
        flags: From the command line, or from code.
        chosen: For one class, while a stream runs.
        origin: The file's name, for messages; empty without one.
    """

    common: Decision = Decision()
    classes: Mapping[str, Decision] = field(default_factory=dict)
    flags: Decision = Decision()
    chosen: Mapping[str, Decision] = field(default_factory=dict)
    origin: str = ""

    def decision(self, class_name: str) -> Decision:
        """The settings in effect for a class."""
        of_file = self.common.overridden(self.classes.get(class_name, Decision()))
        found = of_file.overridden(self.flags).overridden(self.chosen.get(class_name, Decision()))
        return dataclasses.replace(found, roi=None) if found.roi is not None and found.roi.whole else found

    def overridden(self, flags: Decision) -> Settings:
        """These settings, overridden by flags."""
        return dataclasses.replace(self, flags=self.flags.overridden(flags))

    def choosing(self, class_name: str, decision: Decision) -> Settings:
        """These settings, with those chosen for a class now over those chosen before."""
        before = self.chosen.get(class_name, Decision())
        return dataclasses.replace(self, chosen={**self.chosen, class_name: before.overridden(decision)})

    def without_choice(self, class_name: str) -> Settings:
        """These settings, without the thresholds that were chosen for a class; a region stays, which no score made."""
        before = self.chosen.get(class_name, Decision())
        return dataclasses.replace(self, chosen={**self.chosen, class_name: Decision(roi=before.roi)})

    def check_classes(self, known: tuple[str, ...]) -> None:
        """Refuses settings for a class that the bundle does not have.

        Raises:
            SettingsError: The message names both.
        """
        for name in self.classes:
            if name not in known:
                raise SettingsError(
                    f"{self.origin}: [class.{name}] is not in this bundle, which has {', '.join(known)}"
                )
