"""Sizes as people write them."""

from __future__ import annotations

import re

from kanoclip.runtime.errors import SettingsError

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_size(text: str) -> int:
    """Reads a number of bytes such as `500M` or `1.5G`; a unit is 1024 times the one before.

    Raises:
        SettingsError: It is no such text, or less than one byte.
    """
    parts = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    size = int(float(parts[1]) * _UNITS[parts[2].upper()]) if parts else 0
    if size < 1:
        raise SettingsError(f"{text!r} is no size such as 500M or 2G")
    return size


def show_size(size: int) -> str:
    """A number of bytes with one decimal in the unit that suits it."""
    value, unit = float(size), ""
    for unit in _UNITS:
        if value < 1024 or unit == "T":
            break
        value /= 1024
    return f"{value:.1f} {unit}B" if unit else f"{size} B"
