"""The sources of a run that fail, end or join while the others go on."""

from __future__ import annotations

import logging

from kanoclip.runtime.errors import KanoclipError, SourceError, one_line
from kanoclip.runtime.sources.base import Source
from kanoclip.runtime.stream.counters import SourceTally
from kanoclip.runtime.stream.run_state import RunState

log = logging.getLogger(__name__)


def source_failed(run: RunState, number: int, error: BaseException) -> None:
    """One source ends before its end: the run after it where it is alone; of several, the others go on.

    Args:
        run: The run.
        number: Which.
        error: Why; of several sources, each one's first error is reported.
    """
    if len(run.sources) == 1:
        run.remember(error)
        return
    with run.lock:
        counts = run.tally.sources[number]
        if counts.error is not None:
            return
        words = one_line(error)
        if not isinstance(error, KanoclipError):
            words = f"{counts.source.name}: unexpected {type(error).__name__}: {words}"
        counts.error = words
        others = len(_reading(run)) > 1
    log.warning("%s%s", words, "; the other sources go on" if others else "")


def source_ended(run: RunState, number: int) -> None:
    """One source gives nothing more; after the last there is nothing to wait for."""
    with run.lock:
        run.tally.sources[number].ended = True
        last = all(counts.ended for counts in run.tally.sources)
    if last:
        run.frames.close()


def add_source(run: RunState, source: Source) -> int:
    """Takes one more source in, which `StreamControl` has checked; returns its number.

    Raises:
        SourceError: The run is ending.
    """
    with run.lock:
        if not _reading(run):
            raise SourceError(f"{source.name}: the run is ending")
        run.frames.add_writer()
        for sink in run.sinks:
            sink.queue.add_writer()
        run.tally.sources.append(SourceTally(source))
        run.sources.append(source)
        return len(run.sources) - 1


def _reading(run: RunState) -> list[SourceTally]:
    """Those that may still deliver."""
    return [counts for counts in run.tally.sources if not (counts.ended or counts.removed)]
