"""Reads settings from a TOML file; what is wrong in it is named with its line."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kanoclip.runtime.detect.alarm import AlarmRule
from kanoclip.runtime.detect.roi_file import read_roi
from kanoclip.runtime.detect.settings import Decision, Settings
from kanoclip.runtime.errors import SettingsError, one_line
from kanoclip.runtime.types import RegionOfInterest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SIZE_LIMIT = 1 << 20


def read_settings(path: Path) -> Settings:
    """Reads and checks a settings file.

    ```toml
    [decision]                 # every class
    threshold = 0.72
    pixel_threshold = 0.65
    min_area = 400             # pixels of the original frame
    roi = "line3.json"         # beside this file
    alarm = "3/5"              # raised while 3 of the last 5 frames are anomalous

    [class."ceramic tile"]     # overrides it for one class
    threshold = 0.8
    ```

    Raises:
        SettingsError: It cannot be read, is no TOML, or has an unknown key or a bad value; the message says which, and
            in which line.
    """
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise SettingsError(f"{path}: over {SIZE_LIMIT >> 20} MiB, which is no settings file")
        text = path.read_text(encoding="utf-8-sig")
        value = tomllib.loads(text + "\n")  # else an error in the last line is told without its number
    except OSError as error:
        raise SettingsError(f"{path}: the settings cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # tomllib's error tells line and column
        raise SettingsError(f"{path}: not TOML ({one_line(error)})") from error
    reader = _Reader(path, text)
    reader.known(value, (), {"decision", "class"})
    classes = reader.table(value.get("class", {}), ("class",))
    return Settings(
        common=reader.decision(value.get("decision", {}), ("decision",)),
        classes={name: reader.decision(one, ("class", name)) for name, one in classes.items()},
        origin=str(path),
    )


class _Reader:
    """Takes decisions out of TOML's tables, and finds the line of what is wrong."""

    def __init__(self, path: Path, text: str) -> None:
        self._path, self._text = path, text
        self._readers: dict[str, Callable[[Any], Any]] = {
            "threshold": _share,
            "pixel_threshold": _share,
            "min_area": _count,
            "roi": self._roi,
            "alarm": _alarm,
        }

    def decision(self, value: Any, at: tuple[str, ...]) -> Decision:
        """One table."""
        table = self.table(value, at)
        self.known(table, at, set(self._readers))
        given = {}
        for name, one in table.items():
            try:
                given[name] = self._readers[name](one)
            except SettingsError as error:
                raise self._wrong((*at, name), f"{name}: {error}") from error
        return Decision(**given)

    def table(self, value: Any, at: tuple[str, ...]) -> dict[str, Any]:
        """Refuses what is no table."""
        if not isinstance(value, dict):
            raise self._wrong(at, f"{'.'.join(at)} is no table: write [{'.'.join(at)}] on a line of its own")
        return value

    def known(self, value: dict[str, Any], at: tuple[str, ...], names: set[str]) -> None:
        """Refuses keys that mean nothing here."""
        for name in value:
            if name not in names:
                near = difflib.get_close_matches(name, names, 1)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(names))}"
                place = f" in [{'.'.join(at)}]" if at else ""
                raise self._wrong((*at, name), f"unknown key {name!r}{place}; {hint}")

    def _roi(self, value: Any) -> RegionOfInterest:
        if not isinstance(value, str) or not value or "\0" in value:
            raise SettingsError(f"{value!r} is no path of a polygon file")
        return read_roi(self._path.parent / Path(value).expanduser())

    def _wrong(self, at: tuple[str, ...], message: str) -> SettingsError:
        line = line_of(self._text, at)
        return SettingsError(f"{self._path}{'' if line is None else f', line {line}'}: {message}")


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise SettingsError(f"{value!r} is not a number from 0 to 1")
    return float(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise SettingsError(f"{value!r} is not a whole number of pixels from 0")
    return value


def _alarm(value: Any) -> AlarmRule:
    if not isinstance(value, str):
        raise SettingsError(f'{value!r} is not a text such as "3/5"')
    return AlarmRule.parse(value)


def line_of(text: str, at: tuple[str, ...]) -> int | None:
    """The line, from 1, in which a key or a table of a TOML document stands; None where it cannot be told.

    The parser of the standard library tells no lines. Each line's head is given to it once more by itself.
    """
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("["):
            if (path := _path_of(re.sub(r"\]\s*(#.*)?$", "]", stripped).strip("[]") + " = 0")) is not None:
                table = path
                if table[: len(at)] == at:
                    return number
        elif "=" in line and (path := _path_of(line.split("=", 1)[0] + "= 0")) is not None:
            full = table + path
            if full[: len(at)] == at or full == at[: len(full)]:
                return number
    return None


def _path_of(line: str) -> tuple[str, ...] | None:
    """The names on the left of `a.b.c = 0`."""
    try:
        value: Any = tomllib.loads(line)
    except ValueError:
        return None
    path = []
    while isinstance(value, dict):
        if len(value) != 1:
            return None
        ((name, value),) = value.items()
        path.append(name)
    return tuple(path)
