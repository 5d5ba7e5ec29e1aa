"""A progress bar for exports, and for engines that are built when they are first needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.engines import Report


def step_line(console: Console) -> Progress:
    """A line that says what is going on and how far it is, for a terminal only."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@contextmanager
def builds_shown(console: Console) -> Iterator[Report]:
    """Yields a report that shows a bar from its first call on; the bar goes away at the end of the block.

    Args:
        console: Where to; where it is no terminal, each step is one line.
    """
    bar = step_line(console)
    task = bar.add_task("", total=1.0)
    last = ""

    def report(step: str, share: float) -> None:
        nonlocal last
        if step != last:
            last = step
            if not console.is_terminal:
                console.print(step, markup=False, highlight=False)
            bar.start()
        bar.update(task, description=step, completed=share)

    try:
        yield report
    finally:
        bar.stop()
