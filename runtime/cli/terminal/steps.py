"""What a person sees of work in steps: the step's name and how far it is, on a terminal only."""

from __future__ import annotations

import time
from contextlib import suppress

from kanoclip.runtime.cli.terminal.building import step_line
from kanoclip.runtime.cli.terminal.console import Console

AFTER_S = 1.0
"""Work that takes less is not worth a line."""


class Steps:
    """One line that goes away at the end. Use as a context manager.

    Args:
        console: Where to; standard error, so that standard output stays clean.
    """

    def __init__(self, console: Console) -> None:
        self._bar = step_line(console)
        self._task = self._bar.add_task("", total=None)
        self._began, self._shown = time.monotonic(), False

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._bar.stop()

    def show(self, step: str, done: int | None, total: int | None) -> None:
        """Says what is being done, once the work has lasted AFTER_S seconds.

        Args:
            step: In a word or two.
            done: How many frames are done; None where there is nothing to count.
            total: Of how many, where that is known.
        """
        if not self._shown and time.monotonic() - self._began < AFTER_S:
            return
        with suppress(OSError):  # the terminal has gone: no reason to end the work
            if not self._shown:
                self._shown = True
                self._bar.start()
            count = "" if done is None else f" {done}" if total is None else f" {done} of {total}"
            self._bar.update(self._task, description=f"{step}{count}", completed=done or 0, total=total)
