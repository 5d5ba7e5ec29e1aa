"""What verdicts are made by, beside the bundle's thresholds: one TOML file, and flags that overrule it."""

from __future__ import annotations

import dataclasses
import difflib
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kanoclip.runtime.alarm import AlarmRule
from kanoclip.runtime.errors import SettingsError, one_line
from kanoclip.runtime.polygons import read_roi
from kanoclip.runtime.roi import RegionOfInterest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SIZE_LIMIT = 1 << 20


@dataclass(frozen=True)
class Decision:
    """What verdicts are made by; None leaves it to what comes before, in the end to the bundle.

    Attributes:
        threshold: Score from which a frame is anomalous, in [0, 1].
        pixel_threshold: Map value from which a pixel belongs to a region, in [0, 1].
        min_area: Smallest region in pixels of the original frame.
        roi: Where pictures are judged.
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

    def overruled(self, by: Decision) -> Decision:
        """This one, with what the other sets."""
        given = {f.name: getattr(by, f.name) for f in dataclasses.fields(by) if getattr(by, f.name) is not None}
        return dataclasses.replace(self, **given)


@dataclass(frozen=True)
class Settings:
    """Everything that was set, in the order in which the later overrules the earlier.

    Attributes:
        common: For every class: `[decision]` of the file.
        classes: For one class: `[class.NAME]` of the file.
        flags: From the command line, or from code.
        origin: The file's name, for messages; empty without one.
    """

    common: Decision = Decision()
    classes: Mapping[str, Decision] = field(default_factory=dict)
    flags: Decision = Decision()
    origin: str = ""

    def decision(self, class_name: str) -> Decision:
        """What holds for a class."""
        return self.common.overruled(self.classes.get(class_name, Decision())).overruled(self.flags)

    def overruled(self, flags: Decision) -> Settings:
        """These, with flags over them."""
        return dataclasses.replace(self, flags=self.flags.overruled(flags))

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


def read_settings(path: Path) -> Settings:
    """Reads and checks a settings file.

    ```toml
    [decision]                 # every class
    threshold = 0.72
    pixel_threshold = 0.65
    min_area = 400             # pixels of the original frame
    roi = "line3.json"         # beside this file
    alarm = "3/5"              # raised while 3 of the last 5 frames are anomalous

    [class."ceramic tile"]     # overrules it for one class
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
        value = tomllib.loads(text)
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
