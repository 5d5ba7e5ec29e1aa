"""What became of standard output: a failure waits until the command has done all else."""

from __future__ import annotations


class Failures:
    """The first failure to write something, until somebody takes it."""

    def __init__(self) -> None:
        self._first: OSError | None = None

    def note(self, error: OSError) -> None:
        """Something could not be written."""
        self._first = self._first or error

    def take(self) -> OSError | None:
        """The first one since the last call."""
        first, self._first = self._first, None
        return first


STDOUT = Failures()
"""Of this process's standard output."""
