"""A TOML file that a person wrote: what is wrong in it is named with its line, and with what to write instead."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kanoclip.runtime.errors import SettingsError, one_line
from kanoclip.runtime.system.files.regular import read_regular

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SIZE_LIMIT = 1 << 20
MOST_DOTS = 100
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
Place = tuple[str | int, ...]
"""Where something stands: names of tables and keys, and the numbers of tables in arrays, from 0."""


class TomlFile:
    """One file, read and parsed.

    Args:
        path: The file, of at most 1 MiB.

    Attributes:
        path: As given.
        value: The document.

    Raises:
        SettingsError: It cannot be read or is no TOML.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            content = read_regular(path, SIZE_LIMIT)
            if content is None:
                raise SettingsError(f"{path}: over {SIZE_LIMIT >> 20} MiB, which is no settings file")
            self._text = content.decode("utf-8-sig").replace("\r\n", "\n")
        except OSError as error:
            why = error.strerror or error
            raise SettingsError(
                f"{path}: the settings cannot be read ({why}); name a TOML file that this user can read"
            ) from error
        except UnicodeDecodeError as error:
            raise SettingsError(f"{path}: not TOML ({one_line(error)}); save it as UTF-8") from error
        self._refuse_endless_keys()
        try:
            # The line's end: else an error in the last line is reported without its number.
            self.value: dict[str, Any] = tomllib.loads(self._text + "\n")
        except (ValueError, RecursionError) as error:
            raise self._no_toml(one_line(error)) from error

    @property
    def folder(self) -> Path:
        """Where files that it names are looked for."""
        return self.path.parent

    def table(self, value: Any, at: Place) -> dict[str, Any]:
        """Refuses what is no table.

        Raises:
            SettingsError: The message names the line.
        """
        if not isinstance(value, dict):
            name = _named(at)
            raise self.wrong(at, f"{name} is no table: write [{name}] on a line of its own")
        return value

    def tables(self, name: str) -> list[dict[str, Any]]:
        """All tables `[[name]]`.

        Raises:
            SettingsError: There is something else of that name.
        """
        found = self.value.get(name, [])
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise self.wrong((name,), f"{name} is no list of tables: write [[{name}]], in double brackets")
        return found

    def known(self, value: Mapping[str, Any], at: Place, names: Iterable[str]) -> None:
        """Refuses keys that mean nothing here.

        Raises:
            SettingsError: The message names the key, its line, and the known key that is nearest.
        """
        known = sorted(names)
        for name in value:
            if name not in known:
                place = f" in [{_named(at)}]" if at else ""
                raise self.wrong((*at, name), f"unknown key {name!r}{place}; {nearest(name, known)}")

    def wrong(self, at: Place, message: str) -> SettingsError:
        """An error that says where it is."""
        return SettingsError(f"{self.where(at)}: {message}")

    def where(self, at: Place) -> str:
        """The file, with the line of a key or table where that can be found."""
        line = line_of(self._text, at)
        return f"{self.path}{'' if line is None else f', line {line}'}"

    def _refuse_endless_keys(self) -> None:
        """The parser's time grows with the square of a key's dots: one line could hold a reload up for minutes."""
        for number, line in enumerate(self._text.splitlines(), 1):
            if line.count(".") > MOST_DOTS and _QUOTED.sub("", line).count(".") > MOST_DOTS:
                raise SettingsError(f"{self.path}, line {number}: over {MOST_DOTS} dots, which is no key; take it out")

    def _no_toml(self, reason: str) -> SettingsError:
        found = re.search(r"\s*\(?at line (\d+), column \d+\)?", reason)
        if found is None:
            return SettingsError(f"{self.path}: not TOML ({reason})")
        number = int(found[1])
        lines = self._text.splitlines()
        head = lines[number - 1].split("=", 1)[0].strip() if number <= len(lines) else ""
        doubled = head and re.search("overwrite|declare|twice|Duplicate", reason) is not None
        # The key alone: what stands behind it may be a password.
        remedy = f": {head} is there twice, keep one of the two" if doubled else ""
        return SettingsError(f"{self.path}, line {number}: not TOML ({reason.replace(found[0], '')}){remedy}")


def nearest(name: str, known: list[str]) -> str:
    """What may have been meant by an unknown name."""
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def line_of(text: str, at: Place) -> int | None:
    """The line, from 1, in which a key or a table of a TOML document stands; None where it cannot be found.

    The parser of the standard library tells no lines. Each line's head is given to it once more by itself. What stands
    in an inline table or list has the line of the key before it.
    """
    table: Place = ()
    last: dict[Place, int] = {}  # the number of the latest table in each array
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("["):
            head = re.sub(r"\]\s*(#.*)?$", "]", stripped)
            if (names := _path_of(head.strip("[]") + " = 0")) is not None:
                table = _numbered(names[:-1], last)
                table = (*table, names[-1])
                if head.startswith("[["):
                    last[table] = last.get(table, -1) + 1
                table = _numbered(names, last)
                if table[: len(at)] == at:
                    return number
        elif "=" in line and (names := _path_of(line.split("=", 1)[0] + "= 0")) is not None:
            full = (*table, *names)
            if full[: len(at)] == at or full == at[: len(full)]:
                return number
    return None


def _numbered(names: tuple[str, ...], last: Mapping[Place, int]) -> Place:
    """The names, each that stands for an array of tables followed by the number of its latest table."""
    found: Place = ()
    for name in names:
        found = (*found, name)
        if found in last:
            found = (*found, last[found])
    return found


def _path_of(line: str) -> tuple[str, ...] | None:
    """The names on the left of `a.b.c = 0`."""
    try:
        value: Any = tomllib.loads(line)
    except (ValueError, RecursionError):
        return None
    path = []
    while isinstance(value, dict):
        if len(value) != 1:
            return None
        ((name, value),) = value.items()
        path.append(name)
    return tuple(path) or None


def _named(at: Place) -> str:
    """A place as messages name it; tables of an array are told apart by their line."""
    return ".".join(name for name in at if isinstance(name, str))
