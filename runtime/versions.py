"""Which versions of which packages are installed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata


def installed_versions(names: Sequence[str]) -> dict[str, str]:
    """Versions of the distributions that are installed, in the order of `names`; the others are left out."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
