"""Reads what verdicts are made by from a TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kanoclip.runtime.detect.alarm import AlarmRule
from kanoclip.runtime.detect.settings.roi_file import is_rectangle, read_roi, rectangle
from kanoclip.runtime.detect.settings.settings import LARGEST_AREA, Decision, Settings
from kanoclip.runtime.detect.settings.toml_file import Place, TomlFile, line_of
from kanoclip.runtime.errors import SettingsError, one_line
from kanoclip.runtime.types import RegionOfInterest

__all__ = ["KEYS", "TABLES", "line_of", "read_settings", "settings_in"]

TABLES = ("class", "decision", "engine", "learn", "page", "run", "service", "sink", "source")
"""All tables that a line's file may have. Those but `decision` and `class` are for `kanoclip-run` to read."""
KEYS = ("threshold", "pixel_threshold", "min_area", "roi", "alarm")
"""Of `[decision]` and `[class.NAME]`."""


def read_settings(path: Path) -> Settings:
    """Reads and checks the decisions in a file.

    ```toml
    [decision]                 # every class
    threshold = 0.72
    pixel_threshold = 0.65
    min_area = 400             # pixels of the original frame
    roi = "line3.json"         # beside this file; "" for the whole image, where one is set for every class
    alarm = "3/5"              # raised while 3 of the last 5 frames are anomalous

    [class."ceramic tile"]     # overrides it for one class
    threshold = 0.8
    ```

    Raises:
        SettingsError: It cannot be read, is no TOML, or has an unknown key or a bad value; the message says which, and
            in which line.
    """
    return settings_in(TomlFile(path))


def settings_in(file: TomlFile) -> Settings:
    """The decisions in a file that has been parsed; raises as `read_settings` does."""
    file.known(file.value, (), TABLES)
    classes = file.table(file.value.get("class", {}), ("class",))
    return Settings(
        common=_decision(file, file.value.get("decision", {}), ("decision",)),
        classes={name: _decision(file, one, ("class", name)) for name, one in classes.items()},
        origin=str(file.path),
    )


def _decision(file: TomlFile, value: Any, at: Place) -> Decision:
    """One table."""
    table = file.table(value, at)
    file.known(table, at, KEYS)
    given: dict[str, Any] = {}
    for name, one in table.items():
        try:
            given[name] = _roi(one, file.folder) if name == "roi" else _value(name, one)
        except SettingsError as error:
            raise file.wrong((*at, name), f"{name}: {error}") from error
    return Decision(**given)


def _value(name: str, value: Any) -> float | int | AlarmRule:
    if name == "alarm":
        return _alarm(value)
    return _count(value) if name == "min_area" else _share(value)


def _roi(value: Any, folder: Path) -> RegionOfInterest:
    if value == "":
        return RegionOfInterest("the whole image")
    if not isinstance(value, str) or "\0" in value:
        raise SettingsError(f"{_shown(value)} is no path of a polygon file")
    if is_rectangle(value):
        return rectangle(value)
    try:
        path = folder / Path(value).expanduser()
    except RuntimeError as error:  # no such user, or a user without a home
        raise SettingsError(f"{value!r}: this folder of a user is unknown; write the whole path") from error
    return read_roi(path)


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise SettingsError(f"{_shown(value)} is not a number from 0 to 1")
    return float(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_AREA:
        raise SettingsError(f"{_shown(value)} is not a whole number of pixels from 0 to {LARGEST_AREA}")
    return value


def _alarm(value: Any) -> AlarmRule:
    if not isinstance(value, str):
        raise SettingsError(f'{_shown(value)} is not a text such as "3/5"')
    return AlarmRule.parse(value)


def _shown(value: Any) -> str:
    """A value as messages show it. TOML's hexadecimal numbers may be too long to be written in digits."""
    try:
        return one_line(repr(value), 60)
    except (ValueError, RecursionError):
        return "this value"
