"""What has been measured so far, saved in a file line by line: a run that was killed goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from kanoclip.runtime.errors import KanoclipError


class Journal:
    """Remembers each piece's result under its name.

    Attributes:
        known: How many pieces an earlier run had measured.
    """

    def __init__(self, path: Path | None, run: dict[str, Any]) -> None:
        """Opens the file, or begins it.

        Args:
            path: JSON lines: the run, then one line for each piece. None keeps nothing.
            run: What the run measures, on what; JSON values. Only a file of the same is gone on with.

        Raises:
            KanoclipError: The file cannot be read or written, or is another run's.
        """
        self._found: dict[str, Any] = {}
        self._path = path
        if path is not None:
            try:
                self._open(path, run)
            except OSError as error:
                raise KanoclipError(f"--resume {path} cannot be used ({error.strerror})") from error
        self.known = len(self._found)

    def _open(self, path: Path, run: dict[str, Any]) -> None:
        content = path.read_bytes() if path.exists() else b""
        # A killed run may have left its last line half-written: what is whole ends with a line's end.
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.splitlines()
        if lines:
            try:
                header, *pieces = [json.loads(line) for line in lines]
                before = header["run"]
                self._found = {piece["piece"]: piece["result"] for piece in pieces}
            except (ValueError, KeyError, TypeError) as error:
                raise KanoclipError(f"--resume {path} is no file of kanoclip-bench: name another") from error
            if before != run:
                changed = ", ".join(sorted(key for key in {*before, *run} if before.get(key) != run.get(key)))
                raise KanoclipError(f"--resume {path} holds a run that differs in {changed}: name another file")
        elif content and not content.startswith(b'{"run": '):
            raise KanoclipError(f"--resume {path} is no file of kanoclip-bench: name another")
        self._file = path.open("r+b" if content else "wb")
        self._file.truncate(len(whole))
        self._file.seek(len(whole))
        if not lines:
            self._write({"run": run})

    def once(self, piece: str, measure: Callable[[], Any]) -> Any:
        """A piece's result: as it was measured before, or measured now and saved.

        Args:
            piece: Its name.
            measure: Gives a JSON value.

        Raises:
            KanoclipError: The result cannot be written.
        """
        if piece not in self._found:
            # As it will be read again: a run that goes on has the same values as one that was not interrupted.
            self._found[piece] = json.loads(json.dumps(measure()))
            self._write({"piece": piece, "result": self._found[piece]})
        return self._found[piece]

    def knows(self, piece: str) -> bool:
        """Whether a piece has been measured."""
        return piece in self._found

    def _write(self, line: dict[str, Any]) -> None:
        if self._path is None:
            return
        try:
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise KanoclipError(f"--resume {self._path} cannot be written ({error.strerror})") from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._path is not None:
            self._file.close()
