"""Takes fields out of the manifest's JSON; one that is missing, unknown or of a wrong type is named in one line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

from kanoclip.runtime.errors import BundleError

DOCUMENT = "manifest.json"

T = TypeVar("T")

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def parse_object(text: str) -> dict[str, Any]:
    """The JSON object in a text.

    Raises:
        BundleError: It is no JSON (NaN, Infinity and numbers too large for a float are none), or no object.
    """
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{DOCUMENT} is not JSON ({error}): copy or export the bundle again") from error
    if not isinstance(value, dict):
        raise BundleError(f"{DOCUMENT} is not a JSON object: copy or export the bundle again")
    return value


def is_one_line(text: str) -> bool:
    """Whether a text can be printed on one line, as what it is, and encoded.

    No control characters, line ends, marks of direction, characters without width or lone surrogates.
    """
    return _UNPRINTABLE.search(text) is None


class Fields:
    """Takes fields out of a JSON object, naming the one that is wrong."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise wrong(where, "an object")
        self._value, self._where, self._taken = value, where, set[str]()

    def has(self, name: str) -> bool:
        """Whether a field that may be left out is there."""
        return name in self._value

    def _take(self, name: str) -> tuple[Any, str]:
        where = self._place(name)
        if name not in self._value:
            raise BundleError(f"{DOCUMENT} has no field '{where}': copy or export the bundle again")
        self._taken.add(name)
        return self._value[name], where

    def done(self, *also: str) -> None:
        """Refuses fields that nobody took."""
        if unknown := sorted(set(self._value) - self._taken - set(also)):
            # As repr writes it: the name is anybody's.
            where = self._place(unknown[0]) if is_one_line(unknown[0]) else self._place(repr(unknown[0]))
            raise BundleError(f"{DOCUMENT} has the unknown field '{where}': upgrade kanoclip-edge")

    def _place(self, name: str) -> str:
        return f"{self._where}.{name}" if self._where else name

    def text(self, name: str) -> str:
        """A text that is not empty and fits on one line."""
        return as_text(*self._take(name))

    def digest(self, name: str) -> str:
        """A sha256 digest in lower-case hex."""
        return _as_digest(*self._take(name))

    def optional(self, name: str, read: Callable[[Any, str], T]) -> T | None:
        """Null, or what `read` makes of the value and its place."""
        value, where = self._take(name)
        return None if value is None else read(value, where)

    def optional_digest(self, name: str) -> str | None:
        """A sha256 digest or null."""
        return self.optional(name, _as_digest)

    def utc_time(self, name: str) -> str:
        """An ISO-8601 time in UTC, as text."""
        value, where = self._take(name)
        text = as_text(value, where)
        try:
            # Python before 3.11 does not read the Z.
            time = datetime.fromisoformat(re.sub("Z$", "+00:00", text))
        except ValueError:
            time = None
        if time is None or time.utcoffset() != timedelta(0):
            raise wrong(where, "a time in UTC such as 2026-01-02T03:04:05+00:00")
        return text

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        """One of the texts allowed."""
        value, where = self._take(name)
        if value not in allowed:
            raise wrong(where, f"one of {', '.join(allowed)}")
        return str(value)

    def flag(self, name: str) -> bool:
        """True or false."""
        value, where = self._take(name)
        if not isinstance(value, bool):
            raise wrong(where, "true or false")
        return value

    def integer(self, name: str, least: int) -> int:
        """An integer that is `least` or more."""
        return as_integer(*self._take(name), least)

    def share(self, name: str) -> float:
        """A number from 0 to 1."""
        value, where = self._take(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise wrong(where, "a number from 0 to 1")
        return float(value)

    def fields(self, name: str) -> Fields:
        """An object whose fields are taken in turn."""
        return Fields(*self._take(name))

    def items(self, name: str, read: Callable[[Any, str], T]) -> list[T]:
        """A list; `read` takes each item and its place."""
        value, where = self._take(name)
        if not isinstance(value, list):
            raise wrong(where, "a list")
        return [read(item, f"{where}[{index}]") for index, item in enumerate(value)]

    def mapping(self, name: str, read: Callable[[Any, str], T]) -> dict[str, T]:
        """An object with any names; `read` takes each value and its place."""
        value, where = self._take(name)
        if not isinstance(value, dict):
            raise wrong(where, "an object")
        return {key: read(item, f"{where}[{key!r}]") for key, item in value.items()}

    def json_object(self, name: str) -> dict[str, Any] | None:
        """Any JSON object, or null."""
        value, where = self._take(name)
        if value is not None and not isinstance(value, dict):
            raise wrong(where, "an object or null")
        return value


def wrong(where: str, wanted: str) -> BundleError:
    """The error for a field that is not what is wanted."""
    return BundleError(f"{DOCUMENT}: field '{where}' is not {wanted}: copy or export the bundle again")


def as_text(value: Any, where: str) -> str:
    """A text that is not empty and fits on one line."""
    if not isinstance(value, str) or not value or not is_one_line(value):
        raise wrong(where, "a text of one line")
    return value


def as_integer(value: Any, where: str, least: int) -> int:
    """An integer that is `least` or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise wrong(where, f"an integer of at least {least}")
    return value


def _as_digest(value: Any, where: str) -> str:
    text = as_text(value, where)
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise wrong(where, "a sha256 digest")
    return text


def _finite(text: str) -> float:
    """Python reads 1e999 as infinity, which no JSON can hold."""
    if not math.isfinite(number := float(text)):
        raise ValueError(f"it holds {text[:20]}")
    return number


def _refuse(constant: str) -> None:
    raise ValueError(f"it holds {constant}")
