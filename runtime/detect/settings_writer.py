"""Puts values into a settings file, and leaves everything else in it as it is: comments, order, blank lines."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kanoclip.runtime.errors import SettingsError, one_line
from kanoclip.runtime.system.paths import replace_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Place = tuple[str, ...]
"""A table's names, such as `("class", "bottle")`."""


def write_settings(path: Path, values: Mapping[tuple[Place, str], float]) -> None:
    """Sets keys in a settings file, which is made if there is none.

    Args:
        path: The file; the one that a link points to is written.
        values: By table and key.

    Raises:
        SettingsError: The library for it is not installed, or the file is no good or cannot be written; then it is as
            it was.
    """
    try:
        import tomlkit
        from tomlkit.exceptions import TOMLKitError
    except ModuleNotFoundError:
        raise SettingsError(
            "tomlkit is not installed, which changes a settings file: pip install 'kanoclip-edge[page]'"
        ) from None
    target = path.resolve()
    try:
        text = target.read_text(encoding="utf-8-sig") if target.exists() else ""
        expected: dict[str, Any] = copy.deepcopy(tomllib.loads(text))
        document = tomlkit.parse(text)
        for (place, key), value in values.items():
            table: Any = document
            meant = expected
            for depth, name in enumerate(place):
                if name not in table:
                    # A table that only holds others needs no line of its own.
                    table[name] = tomlkit.table(is_super_table=depth < len(place) - 1)
                table, meant = table[name], meant.setdefault(name, {})
            table[key] = meant[key] = value
        written = tomlkit.dumps(document)
        if tomllib.loads(written) != expected:
            raise ValueError("it is written in a way that cannot be added to: set the thresholds by hand")
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, written.encode())
    except OSError as error:
        raise SettingsError(f"{path} cannot be written ({error.strerror or error})") from error
    except (ValueError, TOMLKitError) as error:
        raise SettingsError(f"{path} cannot be changed ({one_line(error)})") from error
