"""Command line options that several commands have."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

from kanoclip.runtime.detect.alarm import AlarmRule
from kanoclip.runtime.detect.roi_file import read_roi
from kanoclip.runtime.detect.settings import Decision, Settings
from kanoclip.runtime.detect.settings_file import read_settings
from kanoclip.runtime.engines import BACKENDS, DEVICE, check_backend
from kanoclip.runtime.engines.triton.address import SHAPE
from kanoclip.runtime.errors import BackendError, SettingsError
from kanoclip.runtime.system.sizes import parse_size

_Command = TypeVar("_Command", bound=Callable[..., Any])


class SectionedCommand(click.Command):
    """A command whose --help lists the options of each group under a heading of its own, after all others."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the sections."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(param, "section", "Options"), []).append(record)
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)


def grouped(name: str, group: type[Any], title: str, *options: Callable[[Any], Any]) -> Callable[[_Command], _Command]:
    """Adds options that reach the command as one argument.

    Args:
        name: The argument.
        group: A dataclass with a field for each option.
        title: Their heading in --help.
        options: As `click.option` makes them, in the order in which --help lists them.
    """
    names = [one.name for one in fields(group)]

    def add(command: _Command) -> _Command:
        @functools.wraps(command)
        def with_group(**given: Any) -> Any:
            values = {one: given.pop(one) for one in names}
            return command(**given, **{name: group(**values)})

        added: Any = with_group
        others = len(getattr(added, "__click_params__", ()))
        for option in reversed(options):
            added = option(added)
        for param in added.__click_params__[others:]:
            param.section = title
        result: _Command = added
        return result

    return add


def size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A callback that reads a size such as 500M, in bytes."""
    try:
        return None if value is None else parse_size(value)
    except SettingsError as error:
        raise click.BadParameter(str(error), ctx=ctx, param=param) from None


def backend_options(command: _Command) -> _Command:
    """Adds --backend, --device and --threads."""
    for option in (
        click.option(
            "--threads", type=click.IntRange(min=1), help="CPU threads of the engine. Default: the engine's choice."
        ),
        click.option(
            "--device",
            default="auto",
            show_default=True,
            callback=_known_device,
            metavar="auto|cpu|cuda[:N]",
            help="Where the engine runs.",
        ),
        click.option(
            "--backend",
            default="auto",
            show_default=True,
            callback=_known_backend,
            metavar="NAME",
            help=f"Inference engine: {', '.join(BACKENDS)}; or {SHAPE}, a model on a server.",
        ),
    ):
        command = option(command)
    return command


def decision_options(command: _Command) -> _Command:
    """Adds --config, --roi, --min-area and --alarm, which what follows a camera and what calibrates it both take."""
    for option in (
        click.option(
            "--alarm",
            callback=_alarm_rule,
            metavar="K/N[/CLEAR]",
            help="Raise the alarm while K of the last N frames are anomalous; or until only CLEAR are. Default: 1/1.",
        ),
        click.option(
            "--min-area",
            type=click.IntRange(min=0),
            help="Smallest region, in pixels of the original frame; an anomalous image keeps its peak. "
            "Default: the bundle's.",
        ),
        click.option(
            "--roi",
            type=click.Path(path_type=Path),
            metavar="FILE.json",
            help="Polygons to score inside of and to ignore; our own format or LabelMe's. Default: the whole image.",
        ),
        click.option(
            "--config",
            type=click.Path(path_type=Path),
            metavar="FILE.toml",
            help="Thresholds, region of interest, smallest area, alarm; for all classes or one. Flags override it.",
        ),
    ):
        command = option(command)
    return command


def chosen_settings(
    config: Path | None,
    roi: Path | None,
    *,
    threshold: float | None = None,
    pixel_threshold: float | None = None,
    min_area: int | None = None,
    alarm: AlarmRule | None = None,
) -> Settings:
    """What the file says, with the flags over it.

    Raises:
        SettingsError: The file or the polygons are no good.
    """
    settings = Settings() if config is None else read_settings(config)
    polygons = None if roi is None else read_roi(roi)
    return settings.overruled(Decision(threshold, pixel_threshold, min_area, polygons, alarm))


def _alarm_rule(ctx: click.Context, param: click.Parameter, value: str | None) -> AlarmRule | None:
    """Refuses what is no rule."""
    try:
        return None if value is None else AlarmRule.parse(value)
    except SettingsError as error:
        raise click.BadParameter(str(error), ctx=ctx, param=param) from None


def _known_backend(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Refuses a backend that there is none of."""
    try:
        return check_backend(value)
    except BackendError as error:
        raise click.BadParameter(f"{error}.", ctx=ctx, param=param) from None


def _known_device(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Refuses a device that no backend has."""
    if not DEVICE.fullmatch(value):
        raise click.BadParameter(f"{value!r} is not auto, cpu, cuda or cuda:N.")
    return value
