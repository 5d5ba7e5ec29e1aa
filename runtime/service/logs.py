"""What the runtime's own log says: one line each on standard error, as text or as JSON."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from typing import Any

from rich.console import Console
from rich.text import Text

from kanoclip.runtime.errors import printable
from kanoclip.runtime.system.net import redact_text

HOLD_S = 60.0
"""The same message is logged again after so long at the earliest, then after twice that, and so on ..."""
LONGEST_HOLD_S = 3600.0
"""... up to this."""
KINDS = 256
"""So many different messages are remembered."""

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_JOURNAL_LEVELS = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


class LogFormat(str, Enum):
    """How lines look."""

    TEXT = "text"
    JSON = "json"


def clean(text: str) -> str:
    """A message in one line of printable characters, without the credentials in URLs or behind `password=`."""
    return printable("".join(" " if c.isspace() else c for c in redact_text(text)))


@dataclass(slots=True)
class _Kind:
    """A message that was logged, whatever numbers are in it."""

    logged_at: float
    hold_s: float
    left_out: int = 0
    last: str = ""


class Repetitions:
    """Logs the same message less and less often, and then how often it came; forgets those of long ago.

    Messages that differ in digits only are the same: `lost after 1234 frames`. One that has not come for twice the time
    that it was held back is new again.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: OrderedDict[tuple[str, int, str], _Kind] = OrderedDict()

    def admit(self, logger: str, level: int, message: str) -> int | None:
        """Whether to log a message now.

        Returns:
            None to leave it out; otherwise how many of its kind were left out before it.
        """
        now = self._clock()
        key = (logger, level, re.sub(r"\d+", "0", message))
        kind = self._kinds.get(key)
        if kind is None or now - kind.logged_at >= 3 * kind.hold_s:
            left_out = kind.left_out if kind is not None else 0
            self._kinds[key] = _Kind(now, HOLD_S)
            self._kinds.move_to_end(key)
            if len(self._kinds) > KINDS:
                self._kinds.popitem(last=False)
            return left_out
        if now - kind.logged_at < kind.hold_s:
            kind.left_out += 1
            kind.last = message
            return None
        left_out, kind.left_out = kind.left_out, 0
        kind.logged_at, kind.hold_s = now, min(2 * kind.hold_s, LONGEST_HOLD_S)
        return left_out

    def rest(self) -> Iterator[tuple[str, int, str, int]]:
        """(Logger, level, last message, how many) of those left out and not counted yet; at the end."""
        for (logger, level, _), kind in self._kinds.items():
            if kind.left_out:
                yield logger, level, kind.last, kind.left_out
                kind.left_out = 0


class _Lines(logging.Handler):
    """One line each on standard error, as it is when the line comes. Never raises: a full disk ends no stream."""

    def __init__(self, style: LogFormat) -> None:
        super().__init__()
        self._style = style
        self._repetitions = Repetitions()

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a record unless it was logged a short while ago."""
        with suppress(Exception):
            message = clean(record.getMessage())
            left_out = self._repetitions.admit(record.name, record.levelno, message)
            if left_out is not None:
                fields = {name: value for name, value in vars(record).items() if name not in _OWN}
                self._write(record.name, record.levelno, message, left_out, fields)

    def finish(self) -> None:
        """Tells how often messages came that were left out."""
        with suppress(Exception):
            for logger, level, message, left_out in self._repetitions.rest():
                self._write(logger, level, message, left_out, {})

    def _write(self, logger: str, level: int, message: str, repeated: int, fields: dict[str, Any]) -> None:
        write_line(self._style, logger, level, message, repeated, fields)


def write_line(
    style: LogFormat,
    logger: str,
    level: int,
    message: str,
    repeated: int = 0,
    fields: dict[str, Any] | None = None,
) -> None:
    """Writes one line; warnings as those of the commands themselves. In the journal each line gets its priority.

    Args:
        style: Text or JSON.
        logger: Who logs it.
        level: As of `logging`.
        message: Clean already.
        repeated: How many of its kind were left out before it.
        fields: What else to tell, in JSON only.
    """
    name = logging.getLevelName(level).lower()
    mark = f"<{_JOURNAL_LEVELS.get(name, 6)}>" if _in_journal() else ""
    if style is LogFormat.JSON:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        values: dict[str, Any] = {"time": now, "level": name, "logger": logger, "message": message}
        if repeated:
            values["repeated"] = repeated
        values |= {key: _plain(value) for key, value in (fields or {}).items() if key not in values}
        sys.stderr.write(f"{mark}{json.dumps(values)}\n")
        sys.stderr.flush()
        return
    alarming = level >= logging.WARNING
    text = f"{'error' if level >= logging.ERROR else 'warning'}: {message}" if alarming else message
    text += f" (and {repeated} {'time' if repeated == 1 else 'times'} since it was last logged)" if repeated else ""
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text(mark + text, "yellow" if alarming else ""))


def _plain(value: Any) -> Any:
    """A field's value as JSON has it: no NaN, no credentials, text for what it does not know."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return clean(str(value))


def _in_journal() -> bool:
    """Whether standard error is the journal's, which reads priorities off the lines."""
    with suppress(OSError, ValueError, AttributeError):
        found = os.fstat(sys.stderr.fileno())
        return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
    return False


@contextmanager
def log_lines(style: LogFormat = LogFormat.TEXT, quiet: bool = False) -> Iterator[None]:
    """Shows what `kanoclip.runtime` logs, such as which engine was found to be the fastest.

    A message that repeats is logged less and less often, with a count. In JSON each line holds `time`, `level`,
    `logger` and `message`, `repeated` where messages were left out, and whatever `extra=` of the logging call has.

    Args:
        style: Text or JSON.
        quiet: Warnings only.
    """
    log = logging.getLogger("kanoclip.runtime")
    handler, before, passed_on = _Lines(style), log.level, log.propagate
    log.addHandler(handler)
    log.propagate = False  # a library may have given the root logger a handler, which would write each line again
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
        log.propagate = passed_on
        handler.finish()
