"""The options of `kanoclip-eval` with references: how many, drawn how often, and what they decide."""

from __future__ import annotations

from dataclasses import dataclass

import click

from kanoclip.runtime.cli.options import Command, with_options
from kanoclip.runtime.cli.run_options.kinds import Decimal


@dataclass(frozen=True)
class FewShotOptions:
    """The options; what each means is in its help."""

    shots: tuple[int, ...]
    unlabelled: int | None
    share: float
    draws: int
    rate: float
    references_only: bool

    @property
    def given(self) -> bool:
        """Whether references are wanted at all."""
        return bool(self.shots) or self.unlabelled is not None


def _counts(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        counts = tuple(int(part) for part in value.split(",")) if value else ()
    except ValueError:
        counts = (0,)
    if any(count < 1 for count in counts):
        raise click.BadParameter(f"{value!r}: write whole numbers from 1, such as 1,2,4", ctx=ctx, param=param)
    return tuple(dict.fromkeys(counts))


_OPTIONS = (
    click.option(
        "--shots",
        callback=_counts,
        default="",
        metavar="LIST",
        help="Give a bundle so many good images as references, drawn anew --draws times: 1,2,4,8,16.",
    ),
    click.option(
        "--unlabelled",
        type=click.IntRange(min=3),
        metavar="N",
        help="Give it N frames of which no one says what they are.",
    ),
    click.option("--share", type=Decimal(0, 1), default=0.1, show_default=True, help="Of them that are anomalous."),
    click.option(
        "--draws", type=click.IntRange(min=1), default=5, show_default=True, help="For --shots and --unlabelled."
    ),
    click.option(
        "--false-alarm-rate",
        "rate",
        type=Decimal(0, 1, min_open=True, max_open=True),
        default=0.05,
        show_default=True,
        help="Of the threshold that references set; its recall is in the table.",
    ),
    click.option(
        "--references-only", is_flag=True, help="Score by the references alone, as kanoclip-learn --references-only."
    ),
)


def few_shot_options(function: Command) -> Command:
    """Adds the options to a command."""
    return with_options(function, _OPTIONS)
