"""The options of `kanoclip-eval --ablation`: its own, and all of `kanoclip-train` that its rows are trained with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from kanoclip.runtime.cli.options import Command, with_options
from kanoclip.train.training.cli.command import command as training


@dataclass(frozen=True)
class AblationOptions:
    """The options; what each means is in its help.

    Attributes:
        training: Those of `kanoclip-train` that somebody set, as arguments.
    """

    ablation: bool
    train_dataset: str | None
    train_root: Path | None
    train_categories: tuple[str, ...]
    epochs: int
    checkpoints: Path | None
    training: tuple[str, ...]


_OWN = (
    click.option("--ablation", is_flag=True, help="Train and measure the rows of table 3."),
    click.option("--train-dataset", metavar="NAME", help="For --ablation: what to train on."),
    click.option("--train-root", type=click.Path(path_type=Path), metavar="DIR", help="For --ablation: its folder."),
    click.option(
        "--train-category", "train_categories", multiple=True, metavar="NAME", help="For --ablation; repeatable."
    ),
    click.option("--epochs", type=click.IntRange(min=1), default=15, show_default=True, help="For --ablation."),
    click.option(
        "--seed",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="For --ablation, and the draws of --shots and --unlabelled.",
    ),
    click.option(
        "--checkpoints", type=click.Path(path_type=Path), metavar="DIR", help="For --ablation: where they go."
    ),
)
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


def ablation_options(function: Command) -> Command:
    """Adds the ablation's own options to a command, and below them those of the training."""
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
    return with_options(function, _OWN)


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
