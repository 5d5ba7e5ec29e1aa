"""What the runtime's own log says, for people."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text


class _Lines(logging.Handler):
    """One line each on standard error, as it is when the line comes."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a record; warnings as those of the commands themselves."""
        alarming = record.levelno >= logging.WARNING
        text = f"warning: {record.getMessage()}" if alarming else record.getMessage()
        Console(stderr=True, highlight=False, soft_wrap=True).print(Text(text, "yellow" if alarming else ""))


@contextmanager
def notes_shown(quiet: bool = False) -> Iterator[None]:
    """Shows what `kanoclip.runtime` logs, such as which engine was found to be the fastest.

    Args:
        quiet: Warnings only.
    """
    log = logging.getLogger("kanoclip.runtime")
    handler, before = _Lines(), log.level
    log.addHandler(handler)
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
