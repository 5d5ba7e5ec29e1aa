"""Sources that are written as `kind://what?name=value&...`, checked at the door."""

from __future__ import annotations

import math
from collections.abc import Iterable
from urllib.parse import parse_qsl

from kanoclip.runtime.errors import SourceError


def split_query(spec: str, scheme: str, known: Iterable[str], example: str) -> tuple[str, dict[str, str]]:
    """Splits such a string.

    Args:
        spec: The string; begins with `scheme`.
        scheme: What it begins with, such as `csi://`.
        known: Names of the options there are.
        example: How options are written, for the message.

    Returns:
        What stands before the question mark, and each option's text.

    Raises:
        SourceError: It is not of that form, or an option is unknown or given twice.
    """
    what, _, query = spec.removeprefix(scheme).partition("?")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        raise SourceError(f"{spec}: options are written {example}") from None
    names = list(known)
    for name, _value in pairs:
        if name not in names:
            raise SourceError(f"{spec}: unknown option {name!r}; known are {', '.join(names)}")
    if len(dict(pairs)) != len(pairs):
        raise SourceError(f"{spec}: an option is given twice")
    return what, dict(pairs)


def whole(spec: str, name: str, text: str, low: int, high: int) -> int:
    """A whole number in its range; `text` may hold ASCII digits and nothing else.

    Raises:
        SourceError: It is something else.
    """
    if text.isascii() and text.isdecimal() and len(text) <= 9 and low <= int(text) <= high:
        return int(text)
    raise SourceError(f"{spec}: {name} must be a whole number from {low} to {high}, not {text!r}")


def decimal(spec: str, name: str, text: str, low: float, high: float) -> float:
    """A number in its range, written with ASCII digits and at most a point.

    Raises:
        SourceError: It is something else.
    """
    digits = text.replace(".", "", 1)
    value = float(text) if digits.isascii() and digits.isdecimal() and len(text) <= 16 else math.nan
    if low <= value <= high:
        return value
    raise SourceError(f"{spec}: {name} must be a number from {low:g} to {high:g}, not {text!r}")
