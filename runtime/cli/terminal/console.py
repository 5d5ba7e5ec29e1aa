"""The door to the terminal: only visible characters pass it, and a full disk behind it ends no command at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import IO

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

from kanoclip.runtime.cli.terminal.stdout import STDOUT, Failures
from kanoclip.runtime.errors import printable

_LAYOUT = "\n\t"


class _Patient:
    """A stream whose failures wait: the command does all else first.

    Args:
        file: The stream.
        failures: Who is to know; None for nobody.
    """

    def __init__(self, file: IO[str], failures: Failures | None) -> None:
        self._file, self._failures = file, failures

    @property
    def encoding(self) -> str:
        """As of the stream, if it has one."""
        return self._file.encoding if isinstance(self._file, TextIOWrapper) else "utf-8"

    def write(self, text: str) -> int:
        """Writes what can be written."""
        with self._patience():
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes what can be flushed."""
        with self._patience():
            self._file.flush()

    def isatty(self) -> bool:
        """Whether a person is there."""
        return self._file.isatty()

    def fileno(self) -> int:
        """As of the stream."""
        return self._file.fileno()

    @contextmanager
    def _patience(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if self._failures is not None:
                self._failures.note(error)


class Console(rich.console.Console):
    """Rich's console, for all that commands print. Colours and cursor are its own: none come from what it prints."""

    @property
    def file(self) -> IO[str]:
        """Where to, at present."""
        return _Patient(super().file, None if self.stderr or self._file else STDOUT)  # type: ignore[return-value]

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yields the pieces of what is printed, each in visible characters."""
        for one in super().render(renderable, options):
            yield one if one.control else Segment(printable(one.text, _LAYOUT), one.style)
