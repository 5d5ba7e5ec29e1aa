"""The options of `kanoclip-train` that `kanoclip-eval --ablation` hands on to the training of its rows: all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from kanoclip.train.training.cli import command as training

Command = TypeVar("Command", bound=Callable[..., Any])

_DECIDED = {
    "dataset",
    "root",
    "categories",
    "output",
    "overwrite",
    "resume",
    "quiet",
    "no_knpl",
    "no_vv",
    "no_bicmci",
    "no_conv_adapter",
}
"""What the ablation decides itself, or has under another name."""
_SHARED = {"class_name", "backbone", "weights", "image_size", "epochs", "batch_size", "device", "threads", "seed"}
"""What `kanoclip-eval` has an option of its own for, which holds for the training too."""
TAKEN = tuple(
    param for param in training.params if isinstance(param, click.Option) and param.name not in _DECIDED | _SHARED
)


def taking_training_options(function: Command) -> Command:
    """Adds the options to a command, below its own."""
    for param in TAKEN:
        flags = [*param.opts, str(param.name)]
        click.option(
            *flags,
            type=param.type,
            multiple=param.multiple,
            is_flag=param.is_flag,
            default=param.default,
            show_default=param.show_default,
            metavar=param.metavar,
            help=f"For --ablation, as for kanoclip-train. {param.help or ''}".strip(),
        )(function)
    return function


def training_arguments(context: click.Context, given: dict[str, Any]) -> tuple[str, ...]:
    """Takes the options out of a command's parameters, and gives those that somebody set as arguments.

    Args:
        context: Of the command.
        given: Its parameters; changed.
    """
    arguments: list[str] = []
    for param in TAKEN:
        name = str(param.name)
        value = given.pop(name)
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        if param.is_flag:
            arguments.append(param.opts[0])
        else:
            for one in value if param.multiple else (value,):
                arguments += [param.opts[0], str(one)]
    return tuple(arguments)
