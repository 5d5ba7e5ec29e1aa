"""Which versions of which packages are installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from importlib import metadata


def is_installed(module: str) -> bool:
    """Whether a module is there, without the time that importing it takes."""
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # a module without a spec, as an embedding program may have put there
        return True


def installed_versions(names: Sequence[str]) -> dict[str, str]:
    """Versions of the distributions that are installed, in the order of `names`; the others are left out."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
