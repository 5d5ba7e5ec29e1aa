"""Runs good or bad frames through the detector, and keeps of each what thresholds are set by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.sources import Source
from kanoclip.runtime.sources.base import WrappedSource
from kanoclip.runtime.stream.config import PipelineConfig
from kanoclip.runtime.stream.control.progress import Progress
from kanoclip.runtime.stream.pipeline import Pipeline
from kanoclip.runtime.system.queues import Policy
from kanoclip.runtime.types import BadFrame, Frame, Result


@dataclass(frozen=True)
class Values:
    """Of each frame, in order, what the thresholds are compared with. Both inside of the region of interest.

    Attributes:
        scores: The image's score, float64 [n] in [0, 1].
        peaks: The map's largest value, float64 [n] in [0, 1]: a frame that is normal by its score has a region where it
            reaches the threshold.
        skipped: Images that could not be read.
        interrupted: It was ended by a signal.
        names: Of the frames: a file's path; empty where no one needs them.
    """

    scores: npt.NDArray[np.float64]
    peaks: npt.NDArray[np.float64]
    skipped: int
    interrupted: bool
    names: tuple[str, ...] = ()


class EveryNth(WrappedSource):
    """One frame of every N of a source; the others are read and not scored.

    Args:
        source: What it reads; closed with it.
        step: N, at least 1.
    """

    def __init__(self, source: Source, step: int) -> None:
        super().__init__(source)
        self._step = step

    @property
    def count(self) -> int | None:
        """Frames that are scored."""
        return None if self._source.count is None else -(-self._source.count // self._step)

    @property
    def fps(self) -> float | None:
        """Scored frames per second of the recording."""
        return None if self._source.fps is None else self._source.fps / self._step

    def frames(self) -> Iterator[Frame | BadFrame]:
        """Yields the first frame, the one N after it, and so on; images that cannot be read count as frames."""
        for number, item in enumerate(self._source.frames()):
            if number % self._step == 0:
                yield item


def gather(
    source: Source,
    detector: Detector,
    class_name: str | None,
    *,
    max_frames: int | None = None,
    on_tick: Callable[[Progress], None] | None = None,
) -> Values:
    """Scores a source to its end.

    Args:
        source: Closed in the end, whatever happens.
        detector: Its region of interest is the one to be used later; its thresholds do not matter.
        class_name: One of the bundle's classes; None for the first.
        max_frames: Stop after so many.
        on_tick: Called with the progress.

    Raises:
        KanoclipError: A frame cannot be scored, or the source failed.
    """
    scores: list[float] = []
    peaks: list[float] = []
    names: list[str] = []

    def keep(result: Result) -> None:
        if not isinstance(result, BadFrame):
            frame, detection = result
            names.append(frame.source)
            scores.append(detection.score)
            peaks.append(float(detection.map.max()))

    config = PipelineConfig(
        Policy.DROP_OLDEST if source.live else Policy.WAIT,
        class_name=class_name,
        max_frames=max_frames,
        workers=detector.workers,
    )
    done = Pipeline(source, detector, [], config, observer=keep).run(on_tick)
    return Values(np.array(scores), np.array(peaks), done.skipped, done.interrupted, tuple(names))
