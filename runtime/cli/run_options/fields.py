"""Options as fields of dataclasses: each has one definition, which makes its flag and its key in a TOML file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from kanoclip.runtime.cli.run_options.kinds import Kind
from kanoclip.runtime.cli.run_options.secrets import Secret, Url
from kanoclip.runtime.cli.terminal.completion import complete_paths, paths_of
from kanoclip.runtime.detect.settings.toml_file import Place, TomlFile
from kanoclip.runtime.errors import KanoclipError

_Command = TypeVar("_Command", bound=Callable[..., Any])
Group = TypeVar("Group")
_ABSENT = object()


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        key: In the file's table.
        flag: On the command line, such as `--quiet` or `--window/--no-window`; None where the file alone has it.
        kind: What it takes.
        default: Its value where neither says anything.
        help: For --help.
        metavar: What --help calls the value.
        envvar: The environment variable that stands for the flag.
        repeat: The flag may be repeated, and each is for a table of its own.
        show: Whether --help shows the default.
    """

    key: str
    flag: str | None
    kind: Kind
    default: Any
    help: str
    metavar: str | None = None
    envvar: str | None = None
    repeat: bool = False
    show: bool = False

    @property
    def name(self) -> str | None:
        """What click calls the flag's value."""
        return None if self.flag is None else self.flag.split("/")[0].lstrip("-").replace("-", "_")


class FlagOption(click.Option):
    """An option with the heading that --help lists it under.

    Args:
        declarations: As of `click.Option`, and so are the others.
        section: The heading.
        attributes: The others.
    """

    def __init__(self, declarations: Sequence[str], section: str = "Options", **attributes: Any) -> None:
        super().__init__(declarations, **attributes)
        self.section = section


def option(
    flag: str | None,
    kind: Kind,
    default: Any,
    help: str,
    *,
    key: str | None = None,
    metavar: str | None = None,
    envvar: str | None = None,
    repeat: bool = False,
    show: bool = False,
) -> Any:
    """A field of a group of options; the arguments are those of `Option`, and `key` is the field's name."""
    given = (key, flag, kind, default, help, metavar, envvar, repeat, show)
    return field(default=default, metadata={"option": given})


def options_of(group: type[Any]) -> Mapping[str, Option]:
    """A group's options, by the names of their fields."""
    found = {}
    for one in fields(group):
        if "option" in one.metadata:
            key, *rest = one.metadata["option"]
            found[one.name] = Option(key or one.name, *rest)
    return found


def flags_of(
    *groups: type[Any], section: str = "Options", only: tuple[str, ...] = ()
) -> Callable[[_Command], _Command]:
    """Adds the flags of some groups to a command.

    Args:
        groups: Dataclasses whose fields `option` made. Where several have the same flag, it is added once.
        section: Their heading in --help.
        only: Names of fields, where not all are wanted.
    """
    found: dict[str, Option] = {}
    for group in groups:
        for name, one in options_of(group).items():
            if one.flag is not None and (not only or name in only):
                found.setdefault(one.flag, one)

    def add(command: _Command) -> _Command:
        for one in reversed(found.values()):
            command = _click_option(one, section)(command)
        return command

    return add


def _click_option(one: Option, section: str) -> Callable[[_Command], _Command]:
    assert one.flag is not None and one.name is not None
    multiple = one.repeat or one.kind.multiple
    switch = isinstance(one.kind.flag_type, click.types.BoolParamType)
    default = None if one.default is None or multiple else one.kind.to_flag(one.default)
    attributes: dict[str, Any] = {"default": default, "help": one.help, "envvar": one.envvar, "show_default": one.show}
    if switch:
        attributes["is_flag"] = True
    else:
        attributes |= {"type": one.kind.flag_type, "metavar": one.metavar, "multiple": multiple}
        if paths_of(one.metavar) is not None:
            attributes["shell_complete"] = complete_paths

    def read(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        try:
            if value is None or switch:
                return value
            return tuple(map(one.kind.of_flag, value)) if one.repeat else one.kind.of_flag(value)
        except KanoclipError as error:
            raise click.BadParameter(str(error), ctx=ctx, param=param) from None

    return click.option(one.flag, one.name, cls=FlagOption, section=section, callback=read, **attributes)


def given_flags(ctx: click.Context, groups: tuple[type[Any], ...]) -> dict[str, Any]:
    """The values of the flags that were given on the command line or by their environment variables, by their names."""
    variables = {
        one.name: one.envvar for group in groups for one in options_of(group).values() if isinstance(one.kind, Url)
    }
    found = {}
    for name, value in ctx.params.items():
        source = ctx.get_parameter_source(name)
        if source is ParameterSource.ENVIRONMENT and name in variables:
            found[name] = Secret(env=variables[name])
        elif source in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT):
            found[name] = value
    return found


def overridden(group: Group, given: Mapping[str, Any]) -> Group:
    """A group with what flags set."""
    changes = {
        name: given[one.name]
        for name, one in options_of(type(group)).items()
        if one.name is not None and one.name in given and not one.repeat
    }
    return replace(group, **changes)  # type: ignore[type-var]


def read_group(group: type[Group], file: TomlFile, table: Mapping[str, Any], at: Place, **more: Any) -> Group:
    """Reads a group from a table of a file.

    Args:
        group: The dataclass.
        file: The file.
        table: The table in it.
        at: Where that is.
        more: Fields that are no options.

    Raises:
        SettingsError: An unknown key, a wrong type, a value out of range, or a secret in plain text; the
            message names the line.
    """
    options = options_of(group)
    file.known(table, at, [one.key for one in options.values()])
    values = dict(more)
    for name, one in options.items():
        value = table.get(one.key, _ABSENT)
        if value is not _ABSENT:
            try:
                values[name] = one.kind.of_toml(value, file.folder)
            except KanoclipError as error:
                raise file.wrong((*at, one.key), f"{one.key}: {error}") from None
    return group(**values)


def table_of(group: Any) -> dict[str, Any]:
    """A group as a file's table; what is left to a default that is no value is left out."""
    found = {}
    for name, one in options_of(type(group)).items():
        value = getattr(group, name)
        if value is not None and not (one.kind.multiple and not value):
            found[one.key] = one.kind.to_toml(value)
    return found
