"""A progress bar over a known number of things."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kanoclip.runtime.cli.terminal.console import Console


@contextmanager
def counted(console: Console, what: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[], None]]:
    """Shows a bar on a terminal only, which goes away at the end of the block.

    Args:
        console: Where to.
        what: What is done to each thing, such as `reading`.
        total: How many there are.
        quiet: Show nothing.

    Yields:
        What is called after each thing.
    """
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    ) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)
