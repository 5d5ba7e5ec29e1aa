"""Command line options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from kanoclip.runtime.backends import BACKENDS, DEVICE

_Command = TypeVar("_Command", bound=Callable[..., Any])


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
            "--backend", type=click.Choice(BACKENDS), default="auto", show_default=True, help="Inference engine."
        ),
    ):
        command = option(command)
    return command


def _known_device(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Refuses a device that no backend has."""
    if not DEVICE.fullmatch(value):
        raise click.BadParameter(f"{value!r} is not auto, cpu, cuda or cuda:N.")
    return value
