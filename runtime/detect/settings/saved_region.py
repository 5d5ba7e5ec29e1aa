"""A region of interest that was drawn while a stream ran, saved so that the next start uses it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from kanoclip.runtime.detect.settings.roi_file import write_roi
from kanoclip.runtime.detect.settings.saved_thresholds import Place, Saved, write_settings
from kanoclip.runtime.detect.settings.settings import Decision
from kanoclip.runtime.errors import SettingsError
from kanoclip.runtime.types import RegionOfInterest


def save_region(saved: Saved, class_name: str, wanted: RegionOfInterest | None) -> Path:
    """Writes a class's region to where the next start finds it: polygons beside the settings file, which names them.

    A polygon file that somebody else made, such as LabelMe, stays as it is.

    Args:
        saved: What the next start would use if nothing were written.
        class_name: The class.
        wanted: The region; None for the whole image.

    Returns:
        The settings file.

    Raises:
        SettingsError: A flag overrides any saved region, there is no place for it, or it cannot be written.
    """
    if saved.flags.roi is not None:
        raise SettingsError(f"--roi {saved.flags.roi.name} overrides any saved region: start without it, then save")
    if saved.file is None:
        raise SettingsError("there is no settings file to save the region in: start with --config FILE.toml")
    one = len(saved.bundle.manifest.classes) == 1
    of_class = saved.settings.classes.get(class_name, Decision()).roi
    place: Place = ("decision",) if one and of_class is None else ("class", class_name)
    name = ""
    if wanted is not None:
        polygons = saved.file.with_name(_file_name(saved.file, class_name))
        try:
            polygons.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"{polygons.parent} cannot be made ({error.strerror})") from error
        write_roi(polygons, wanted)
        name = polygons.name
    write_settings(saved.file, {(place, "roi"): name})
    return saved.file


def _file_name(settings: Path, class_name: str) -> str:
    """A class may be called anything; what a file may not be called is told apart by a digest."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", class_name).strip("-")[:40]
    if plain != class_name:
        plain = f"{plain}-{hashlib.sha256(class_name.encode('utf-8', 'replace')).hexdigest()[:8]}".lstrip("-")
    return f"{settings.stem}.{plain}.roi.json"
