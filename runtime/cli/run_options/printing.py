"""The effective configuration as a TOML file that `--config` takes; secrets stand in it by reference only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kanoclip.runtime.cli.run_options.fields import options_of, table_of
from kanoclip.runtime.cli.run_options.inputs import SourceOptions
from kanoclip.runtime.cli.run_options.line_file import LineConfig
from kanoclip.runtime.cli.run_options.secrets import Secret, Url
from kanoclip.runtime.cli.run_options.sinks.by_type import SinkOptions, type_of


def printed(config: LineConfig, bundle: Path) -> str:
    """The configuration as TOML.

    An address that holds a password is printed as `{ env = "NAME" }`, with a comment that says what to put there.

    Args:
        config: File and flags.
        bundle: The bundle's folder, whose own settings count where there is no file.

    Raises:
        SettingsError: The file's decisions are no good.
    """
    decisions = config.decisions
    decided = decisions.tables(decisions.file(bundle))
    taken: dict[str, int] = {}
    parts = [
        _part("[engine]", table_of(config.engine)),
        _part("[run]", table_of(config.run)),
        *(_part("[[source]]", *_referring(one, taken)) for one in config.sources),
        *(_part("[[sink]]", *_referring(one, taken, type=type_of(one))) for one in config.sinks),
        _part("[decision]", decided["decision"]),
        *(_part(f"[class.{_text(name)}]", one) for name, one in decided.get("class", {}).items()),
        *([_part("[learn]", learn)] if (learn := table_of(config.learn)) else []),
        _part("[service]", table_of(config.service)),
        _part("[page]", table_of(config.page)),
    ]
    return "\n".join(parts)


def _referring(
    group: SourceOptions | SinkOptions, taken: dict[str, int], **first: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """A group's table, and by key what is to be said of it; addresses with a password get a variable each.

    Args:
        group: A source or a sink.
        taken: How often each name of a variable was used so far; changed.
        first: What comes first in the table.
    """
    table, notes = first | table_of(group), {}
    for name, one in options_of(type(group)).items():
        value = getattr(group, name)
        if isinstance(one.kind, Url) and isinstance(value, Secret) and value.literal is not None:
            if table[one.key] == value.literal:
                continue
            number = taken[one.kind.variable] = taken.get(one.kind.variable, 0) + 1
            table[one.key] = {"env": f"{one.kind.variable}_{number}"}
            notes[one.key] = f"set this variable to the whole address, {one.kind.shown(value)}"
    return table, notes


def _part(head: str, table: Mapping[str, Any], notes: Mapping[str, str] | None = None) -> str:
    lines = [head]
    for key, value in table.items():
        note = (notes or {}).get(key)
        lines.append(f"{_key(key)} = {_value(value)}" + (f"  # {note}" if note else ""))
    return "\n".join(lines) + "\n"


def _key(key: str) -> str:
    return key if key.isascii() and key.replace("_", "").replace("-", "").isalnum() else _text(key)


def _value(value: Any) -> str:
    """Of the types that options have; a float keeps its point, so that it stays one."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{_key(key)} = {_value(one)}' for key, one in value.items())} }}"
    return repr(value)


def _text(text: str) -> str:
    """In quotes. TOML's escapes are JSON's up to 16 bits. What no terminal should get is escaped."""
    return "".join(
        one if one.isprintable() else f"\\u{ord(one):04x}" if ord(one) < 0x10000 else f"\\U{ord(one):08x}"
        for one in json.dumps(text, ensure_ascii=False)
    )
