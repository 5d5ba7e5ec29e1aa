"""What values an option takes: as a flag's text, in a TOML file, and on the way back into one."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import click

from kanoclip.runtime.detect.settings.roi_file import is_rectangle
from kanoclip.runtime.detect.settings.toml_file import nearest
from kanoclip.runtime.errors import SettingsError
from kanoclip.runtime.system.net import parse_address
from kanoclip.runtime.system.sizes import parse_size


class Decimal(click.FloatRange):
    """A number with a point; one with a comma is refused with the number that was probably meant."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click's own."""
        if isinstance(value, str) and re.fullmatch(r"\s*-?\d*,\d+\s*", value):
            self.fail(f"{value!r} has a comma: write {value.strip().replace(',', '.')}", param, ctx)
        number = super().convert(value, param, ctx)
        if math.isnan(number):  # no bound refuses it
            self.fail(f"{value!r} is no number", param, ctx)
        return number


class Kind:
    """Texts; the kinds below take less, or something else.

    A flag's text goes through click's own type, and then `of_flag`. None stands for "not given" and never comes here.
    """

    multiple = False
    """Whether a flag may be repeated, and a file has a list."""

    @property
    def flag_type(self) -> click.ParamType[Any]:
        """What click makes of the text."""
        return click.STRING

    def of_flag(self, value: Any) -> Any:
        """The value that click's type made, checked further.

        Raises:
            KanoclipError: It makes no sense; without the flag's name.
        """
        self.check(value)
        return value

    def of_toml(self, value: Any, folder: Path) -> Any:
        """The value of a key.

        Args:
            value: As TOML's parser gives it.
            folder: The file's, for files that it names.

        Raises:
            KanoclipError: It is of the wrong type or makes no sense; without the key's name, and without secrets.
        """
        if not isinstance(value, str) or not value or "\0" in value:
            raise SettingsError(f"{value!r} is not a text in quotes")
        return self.of_flag(value)

    def check(self, value: Any) -> None:
        """Refuses what makes no sense, as `of_flag` does."""

    def to_flag(self, value: Any) -> Any:
        """A default as --help shows it."""
        return value

    def to_toml(self, value: Any) -> Any:
        """A value as a file holds it: `of_toml` gives the same one again."""
        return value


@dataclass(frozen=True)
class Number(Kind):
    """Numbers of a range.

    Attributes:
        minimum: The smallest.
        maximum: The largest; None for no limit.
        above: The smallest itself is left out.
        whole: Whole numbers only.
    """

    minimum: float
    maximum: float | None = None
    above: bool = False
    whole: bool = False

    @property
    def flag_type(self) -> click.ParamType[Any]:
        """What click makes of the text."""
        if self.whole:
            return click.IntRange(int(self.minimum), None if self.maximum is None else int(self.maximum))
        return Decimal(self.minimum, self.maximum, min_open=self.above)

    def check(self, value: Any) -> None:
        """Refuses what is out of range, and NaN, which click's own range lets through."""
        if math.isnan(value):
            raise SettingsError(f"NaN is not {self._words}.")
        if value < self.minimum or (self.above and value == self.minimum) or value > (self.maximum or math.inf):
            raise SettingsError(f"{value!r} is not {self._words}")

    def of_toml(self, value: Any, folder: Path) -> Any:
        """A number, which must not stand in quotes."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            raise SettingsError(f"{value!r} is not {self._words}")
        return self.of_flag(value if self.whole else float(value))

    @property
    def _words(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        low = f"{'above' if self.above else 'from'} {self.minimum:g}"
        return f"{kind} {low}" + ("" if self.maximum is None else f" to {self.maximum:g}")


class Switch(Kind):
    """Yes or no."""

    @property
    def flag_type(self) -> click.ParamType[Any]:
        """What click makes of the text."""
        return click.BOOL

    def of_toml(self, value: Any, folder: Path) -> Any:
        """True or false."""
        if not isinstance(value, bool):
            raise SettingsError(f"{value!r} is not true or false")
        return value


@dataclass(frozen=True)
class OneOf(Kind):
    """Members of an Enum, by their values.

    Attributes:
        members: Those that may be chosen.
    """

    members: tuple[Enum, ...]

    @property
    def flag_type(self) -> click.ParamType[Any]:
        """What click makes of the text."""
        return click.Choice(self._names)

    def of_flag(self, value: Any) -> Any:
        """The member; `value` is one of the values, or a member."""
        return next(one for one in self.members if value in (one, one.value))

    def of_toml(self, value: Any, folder: Path) -> Any:
        """The member."""
        if value not in self._names:
            near = nearest(value, self._names) if isinstance(value, str) else f"known are {', '.join(self._names)}"
            raise SettingsError(f"{value!r} is unknown; {near}")
        return self.of_flag(value)

    def to_flag(self, value: Any) -> Any:
        """The member's value."""
        return value.value

    def to_toml(self, value: Any) -> Any:
        """The member's value."""
        return value.value

    @property
    def _names(self) -> list[str]:
        return [str(one.value) for one in self.members]


@dataclass(frozen=True)
class PathName(Kind):
    """Paths.

    Attributes:
        beside: A relative path in a file is of the file's folder, as suits what belongs to it (certificates, polygons).
            Otherwise it is of the working folder, as with flags.
    """

    beside: bool = False

    @property
    def flag_type(self) -> click.ParamType[Any]:
        """What click makes of the text."""
        return click.Path(path_type=Path)

    def of_toml(self, value: Any, folder: Path) -> Any:
        """A path; `~` at its start is the user's home, unless it is written as `./~`."""
        text = super().of_toml(value, folder)
        path = Path(text).expanduser() if text.startswith("~") else Path(text)
        return folder / path if self.beside else path

    def to_toml(self, value: Any) -> Any:
        """The path; absolute where another folder would give it another meaning."""
        text = str(value.absolute() if self.beside else value)
        return f"./{text}" if text.startswith("~") else text


class Region(PathName):
    """Files of polygons, or a rectangle as text: that belongs to no folder."""

    def __init__(self) -> None:
        super().__init__(beside=True)

    def of_toml(self, value: Any, folder: Path) -> Any:
        """The path, or the rectangle."""
        return Path(value) if isinstance(value, str) and is_rectangle(value) else super().of_toml(value, folder)

    def to_toml(self, value: Any) -> Any:
        """The path, absolute, or the rectangle."""
        return str(value) if is_rectangle(str(value)) else super().to_toml(value)


class Size(Kind):
    """Numbers of bytes: `500M` or 1000000."""

    def of_flag(self, value: Any) -> Any:
        """The bytes."""
        return parse_size(value)

    def of_toml(self, value: Any, folder: Path) -> Any:
        """The bytes."""
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        return self.of_flag(value if isinstance(value, str) else str(value))

    def to_flag(self, value: Any) -> Any:
        """In the largest unit that leaves it whole."""
        for unit, factor in (("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
            if value % factor == 0:
                return f"{value // factor}{unit}"
        return str(value)

    def to_toml(self, value: Any) -> Any:
        """In the largest unit that leaves it whole, or as a number."""
        return self.to_flag(value) if value % 1024 == 0 else value


class Address(Kind):
    """HOST:PORT to answer at; a flag's is refused where it is used."""

    def of_toml(self, value: Any, folder: Path) -> Any:
        """The text of a key, checked."""
        parse_address(super().of_toml(value, folder))
        return value


class Texts(Kind):
    """Any number of texts."""

    multiple = True

    def of_toml(self, value: Any, folder: Path) -> Any:
        """A list of texts."""
        if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
            raise SettingsError(f'{value!r} is not a list of texts such as ["a", "b"]')
        return self.of_flag(tuple(value))

    def to_toml(self, value: Any) -> Any:
        """A list."""
        return list(value)
