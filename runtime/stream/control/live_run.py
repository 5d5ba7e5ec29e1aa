"""What is read of a run, and changed in it, while it goes on; all of it from any thread."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from kanoclip.runtime.detect.learning.warm_up import FrameLearner
from kanoclip.runtime.detect.preprocess import Prepared
from kanoclip.runtime.errors import FrameError
from kanoclip.runtime.sources.base import Source
from kanoclip.runtime.stream.config import Criteria
from kanoclip.runtime.stream.control.figures import progress_of, summary_of
from kanoclip.runtime.stream.control.progress import Progress, RunSummary
from kanoclip.runtime.stream.counters import SourceTally, StageStats
from kanoclip.runtime.stream.run_state import RunState
from kanoclip.runtime.stream.source_worker import SourceWorker
from kanoclip.runtime.stream.supervision.sources import add_source


class Latest(NamedTuple):
    """The last scored frame of a source.

    Attributes:
        name: The file that it is, or source and number.
        prepared: As it was scored.
        captured_at: Unix time.
    """

    name: str
    prepared: Prepared
    captured_at: float


class LiveRun:
    """A pipeline's run, beside the threads that it consists of.

    Args:
        run: What these share.
        readers: Its sources' threads; one is added for each source that joins.
        costs: What its sinks cost.
    """

    def __init__(self, run: RunState, readers: list[SourceWorker], costs: Sequence[StageStats]) -> None:
        self._run, self._readers, self._costs = run, readers, costs

    @property
    def stopping(self) -> bool:
        """Whether a stop was requested."""
        return self._run.interrupted

    def progress(self) -> Progress:
        """The state now."""
        return progress_of(self._run.tally, self._run.frames.drops, self._dropped(), paused=self.paused)

    def summary(self) -> RunSummary:
        """What was done so far."""
        run = self._run
        return summary_of(run.tally, run.frames.drops, self._dropped(), self._costs, interrupted=run.interrupted)

    def _dropped(self) -> dict[str, int]:
        """Results lost so far, by the name of each sink that lost any."""
        counts = dict.fromkeys((sink.sink_name for sink in self._run.sinks), 0)
        for sink in self._run.sinks:
            counts[sink.sink_name] += sink.dropped
        return {name: count for name, count in counts.items() if count}

    def changing(self) -> AbstractContextManager[None]:
        """Within it, criteria and what the detector decides by change together; no frame gets a mixture of both.

        Frames that are being scored are scored once more, and no further ones meanwhile.
        """
        return self._run.changing()

    def apply(self, criteria: Criteria) -> None:
        """Scores frames by other criteria from the next one on.

        An alarm takes only verdicts on the same class into account.
        """
        with self._run.changing():
            self._run.criteria = criteria

    @property
    def learner(self) -> FrameLearner | None:
        """What gets every frame after it was scored; None for nothing."""
        return self._run.learner

    def learn_by(self, learner: FrameLearner | None) -> None:
        """Gives it every frame from the next one on after it was scored."""
        self._run.learner = learner

    def latest(self, source: str | None = None) -> Latest:
        """The last scored frame of a source; None for that of all of them.

        Raises:
            FrameError: There is no such source, or no frame of it has been scored.
        """
        names = [one.name for one in self._run.sources]
        if source is not None and source not in names:
            raise FrameError(f"unknown source '{source}': this stream has {', '.join(names)}")
        scored = [Latest(*one) for number, one in self._run.latest.copy().items() if source in (None, names[number])]
        if not scored:
            raise FrameError(f"{source or 'the stream'}: no frame has been scored yet: wait for the first one")
        return max(scored, key=lambda one: one.captured_at)

    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of the last scored frame of each source that has one."""
        return [source.size for source in self._run.tally.sources if source.size is not None]

    @property
    def members(self) -> list[SourceTally]:
        """All sources by their numbers, with their counts; those that were removed too."""
        return list(self._run.tally.sources)

    @property
    def closed_to_sources(self) -> str | None:
        """Why no source may join; None where one may."""
        return "files lose nothing, live sources do" if self._run.waits else self._run.config.closed_to_sources

    def add_source(self, source: Source) -> None:
        """Takes a further source in, and closes it in the end; see `StreamControl.add_source`."""
        reader = SourceWorker(self._run, add_source(self._run, source))
        self._readers.append(reader)
        reader.start()
        if self._run.stopped.is_set():
            source.interrupt()

    def remove_source(self, number: int) -> None:
        """Reads no more of a source; what was read is still scored."""
        counts = self._run.tally.sources[number]
        counts.removed = True
        counts.source.interrupt()

    @property
    def paused(self) -> bool:
        """Whether frames are let go by unscored."""
        return not self._run.going.is_set()

    def pause(self) -> None:
        """Lets a live view's frames go by unscored, or a file's wait, from the next one on."""
        self._run.going.clear()

    def resume(self) -> None:
        """Scores again."""
        self._run.going.set()

    def reopen_sinks(self) -> None:
        """Lets the sinks open their files again, which may have been moved away."""
        for sink in self._run.sinks:
            sink.reopen()
