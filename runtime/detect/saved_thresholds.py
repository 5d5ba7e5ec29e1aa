"""Keeps thresholds that were chosen while a stream ran, so that the next start with the same arguments uses them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest import Thresholds
from kanoclip.runtime.bundle.store import check_place, store
from kanoclip.runtime.detect.settings import Decision, Settings
from kanoclip.runtime.detect.settings_writer import Place, write_settings
from kanoclip.runtime.detect.thresholds import decided
from kanoclip.runtime.errors import BundleError, SettingsError


@dataclass(frozen=True)
class Kept:
    """What a start with the same arguments would use now.

    Attributes:
        bundle: With the thresholds that its manifest holds.
        settings: Of file and flags.
        file: The settings file, which need not exist; None where there is none.
    """

    bundle: Bundle
    settings: Settings
    file: Path | None

    @property
    def flags(self) -> Decision:
        """What the flags set, over file and bundle."""
        return self.settings.flags

    def in_file(self, class_name: str) -> bool:
        """Whether the file sets one of a class's thresholds, and so overrules the bundle."""
        of_file = self.settings.common.overruled(self.settings.classes.get(class_name, Decision()))
        return of_file.threshold is not None or of_file.pixel_threshold is not None

    def place(self, class_name: str) -> Path:
        """The file or the bundle's folder that a class's thresholds come from, flags aside."""
        return self.file if self.file is not None and self.in_file(class_name) else self.bundle.root

    def thresholds(self, class_name: str) -> tuple[float, float]:
        """A class's image and pixel threshold."""
        found = decided(self.bundle.manifest.thresholds_of(class_name), self.settings.decision(class_name))
        return found.image, found.pixel


def keep(kept: Kept, class_name: str, wanted: Thresholds) -> Path:
    """Writes a class's image and pixel threshold to where the next start finds them.

    That is the settings file where it sets one of the two, for it overrules the bundle; otherwise the bundle; and again
    the file where the bundle cannot be written to.

    Args:
        kept: What the next start would use without this.
        class_name: Whose they are.
        wanted: The thresholds.

    Returns:
        The file or the bundle's folder that holds them.

    Raises:
        SettingsError: A flag overrules whatever is kept, or the file cannot be written.
        BundleError: The bundle cannot be written, and there is no file.
    """
    for flag, set_to, value in (
        ("--threshold", kept.flags.threshold, wanted.image),
        ("--pixel-threshold", kept.flags.pixel_threshold, wanted.pixel),
    ):
        if set_to is not None and set_to != value:
            raise SettingsError(f"{flag} {set_to:g} overrules whatever is saved: start without it, and save then")
    if not kept.in_file(class_name):
        try:
            check_place(kept.bundle.root, None)
            return _into_bundle(kept.bundle, class_name, wanted)
        except BundleError:
            if kept.file is None:
                raise
    assert kept.file is not None  # it sets something
    of_class = kept.settings.classes.get(class_name, Decision())
    one = len(kept.bundle.manifest.classes) == 1
    now = kept.thresholds(class_name)
    write_settings(
        kept.file,
        {
            (_place(getattr(of_class, key), class_name, one), key): value
            for key, value, before in (
                ("threshold", wanted.image, now[0]),
                ("pixel_threshold", wanted.pixel, now[1]),
            )
            if value != before
        },
    )
    return kept.file


def _place(set_for_class: float | None, class_name: str, one: bool) -> Place:
    """The table for a key: a bundle of one class has no need of one for the class."""
    return ("decision",) if one and set_for_class is None else ("class", class_name)


def _into_bundle(bundle: Bundle, class_name: str, wanted: Thresholds) -> Path:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    before = bundle.manifest.thresholds_of(class_name)
    thresholds = replace(
        before,
        image=wanted.image,
        pixel=wanted.pixel,
        origin=f"chosen while a stream ran, {now}",
        roi=None,
    )
    whose = None if len(bundle.manifest.classes) == 1 else class_name
    return store(bundle, None, whose, thresholds)
