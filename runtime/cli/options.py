"""Command line options that several commands have."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from kanoclip.runtime.cli.run_options.decisions import DecisionOptions
from kanoclip.runtime.cli.run_options.engine import EngineOptions
from kanoclip.runtime.cli.run_options.fields import FlagOption, flags_of
from kanoclip.runtime.cli.run_options.inputs import Damaged, SourceOptions, reading_of
from kanoclip.runtime.cli.terminal.completion import complete_paths
from kanoclip.runtime.detect.alarm import AlarmRule
from kanoclip.runtime.detect.settings.settings import Settings
from kanoclip.runtime.errors import SettingsError, SourceError
from kanoclip.runtime.sources import check_camera
from kanoclip.runtime.sources.reads import reads_of
from kanoclip.runtime.system.files.guard import Read
from kanoclip.runtime.system.sizes import parse_size

Command = TypeVar("Command", bound=Callable[..., Any])
_Result = TypeVar("_Result")
_POSITIONAL = "bundle_argument"


class SectionedCommand(click.Command):
    """A command whose --help lists the options of each group under a heading of its own, after all others."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the sections."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                section = param.section if isinstance(param, FlagOption) else "Options"
                sections.setdefault(section, []).append(record)
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)


class BundleCommand(SectionedCommand):
    """A command that takes its bundle as an argument, BUNDLE, and as --bundle: whichever a user tries first works.

    Args:
        attributes: As of `click.Command`.
    """

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.params.append(
            click.Argument([_POSITIONAL], required=False, metavar="[BUNDLE]", shell_complete=complete_paths)
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses, and makes one of the two.

        Raises:
            click.UsageError: They differ.
        """
        rest = super().parse_args(ctx, args)
        named, given = ctx.params.pop(_POSITIONAL), ctx.params.get("bundle")
        if named is not None:
            if given is not None and str(given) != named:
                raise click.UsageError(f"{named} and --bundle {given} are two bundles: name one", ctx=ctx)
            ctx.params["bundle"] = named
            ctx.set_parameter_source("bundle", ParameterSource.COMMANDLINE)
        return rest


bundle_option = flags_of(EngineOptions, only=("bundle",))
"""Adds --bundle, to a `BundleCommand`."""
json_option = click.option("--json", "as_json", is_flag=True, help="Print everything as JSON on standard output.")
quiet_option = click.option("--quiet", is_flag=True, help="No progress and no report; warnings and errors remain.")
debug_option = click.option(
    "--debug", is_flag=True, help="Show the traceback of an error and the libraries' own messages."
)


def size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A callback that reads a size such as 500M, in bytes."""
    try:
        return None if value is None else parse_size(value)
    except SettingsError as error:
        raise click.BadParameter(str(error), ctx=ctx, param=param) from None


def share(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """A callback that refuses NaN, which click's own range lets through."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("NaN is no share.", ctx=ctx, param=param)
    return value


def known_camera(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A callback that refuses what can be no camera."""
    if value is not None:
        try:
            check_camera(value)
        except SourceError as error:
            raise click.BadParameter(str(error), ctx=ctx, param=param) from None
    return value


def with_options(command: Command, options: Iterable[Callable[[Any], Any]]) -> Command:
    """Adds options to a command; the first stands first in its help.

    Args:
        command: What click calls.
        options: Of `click.option`.
    """
    for option in reversed(list(options)):
        command = option(command)
    return command


def taken(values: dict[str, Any], group: type[Any]) -> dict[str, Any]:
    """The values of a group's options, taken out of those of all flags.

    Args:
        values: By the names of the flags' parameters.
        group: A dataclass whose fields have these names; one that no flag has is left out.
    """
    return {field.name: values.pop(field.name) for field in fields(group) if field.name in values}


def backend_options(command: Command) -> Command:
    """Adds --backend, --device and --threads."""
    return flags_of(EngineOptions, only=("backend", "device", "threads"))(command)


def reading_options(command: Callable[..., _Result]) -> Callable[..., _Result]:
    """Adds --damaged, --bit-depth and --max-pixels; the command gets what they say as `reading`."""

    @functools.wraps(command)
    def called(*args: Any, damaged: Damaged, bit_depth: int | None, max_pixels: int, **values: Any) -> _Result:
        return command(*args, reading=reading_of(damaged, bit_depth, max_pixels), **values)

    return flags_of(SourceOptions, only=("damaged", "bit_depth", "max_pixels"))(called)


def decision_options(command: Command) -> Command:
    """Adds --config, --roi, --min-area and --alarm, for commands that calibrate a camera."""
    command = flags_of(DecisionOptions, only=("roi", "min_area", "alarm"))(command)
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE.toml",
        help="Thresholds, region of interest, smallest area, alarm; for all classes or one. Flags override it.",
    )(command)


def chosen_settings(
    config: Path | None,
    roi: Path | None,
    *,
    threshold: float | None = None,
    pixel_threshold: float | None = None,
    min_area: int | None = None,
    alarm: AlarmRule | None = None,
) -> Settings:
    """The file's settings, overridden by the flags.

    Raises:
        SettingsError: The file or the polygons are invalid.
    """
    flags = DecisionOptions(
        threshold=threshold, pixel_threshold=pixel_threshold, roi=roi, min_area=min_area, alarm=alarm
    )
    return flags.over(config)


def reads_of_flags(bundle: Path | None, config: Path | None, roi: Path | None, *sources: str | None) -> list[Read]:
    """What a command reads by these flags, which none of its outputs may overwrite.

    Args:
        bundle: The bundle's folder; None for none.
        config: As --config names it.
        roi: As --roi names it.
        sources: As --source and --bad name them.
    """
    found = [one for source in sources if source is not None for one in reads_of(source)]
    if bundle is not None:
        found.append(Read("the bundle", bundle, closed=True))
    found += [
        Read(what, path)
        for what, path in (("the settings", config), ("the region of interest", roi))
        if path is not None
    ]
    return found
