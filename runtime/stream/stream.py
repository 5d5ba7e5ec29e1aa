"""A stream in its caller's own loop: from a source to verdicts in a few lines of Python."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from kanoclip.runtime.detect.alarm import EVERY_FRAME, AlarmRule
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.learning.live import FROM_OUTSIDE, LiveReferences, MemoryCount
from kanoclip.runtime.sinks.base import BaseSink, Sink, SinkFactory
from kanoclip.runtime.sources import Source, open_stream
from kanoclip.runtime.sources.several import together
from kanoclip.runtime.stream.config import PipelineConfig
from kanoclip.runtime.stream.control.progress import RunSummary
from kanoclip.runtime.stream.pipeline import Pipeline
from kanoclip.runtime.system.queues import Mailbox, MailboxClosedError, Policy
from kanoclip.runtime.types import BadFrame, Detection, Frame, Image

log = logging.getLogger(__name__)


class Stream:
    """Scores the frames of one or more sources, and yields each frame with its detection.

    It runs in threads of its own from the start: frames are read and scored while the caller works on the one before.
    Of a live source the newest frames are yielded, and old ones dropped where detector or caller are slower; files lose
    nothing. Images that cannot be read are logged and left out.

    Args:
        source: Whatever `kanoclip-run --source` takes, or the number of a camera, or a `Source`; several of them share
            the detector, and `Frame.stream` names the one that a frame is from. A camera or URL that is lost is opened
            again. Closed in the end, as the sinks are.
        detector: What scores them; it stays the caller's.
        sinks: Where results go besides, such as `JsonLinesSink("frames.jsonl")`.
        class_name: One of the bundle's classes; None for the first.
        policy: What happens when scoring is slower than the source; None for what suits the source.
        max_frames: End after this many scored frames; None for no limit.
        alarm: When `Detection.alarm` is raised and cleared.

    Raises:
        SourceError: A source cannot be opened, or live ones and files are mixed.

    Examples:
        >>> from kanoclip.runtime import Detector, Stream
        >>> with Detector.load() as detector, Stream("test://?fps=100", detector, max_frames=3) as stream:
        ...     for frame, found in stream:
        ...         assert found.is_anomalous == (found.score >= found.threshold)
        >>> stream.summary.frames
        3
    """

    def __init__(
        self,
        source: Source | str | Path | int | Sequence[Source | str | Path | int],
        detector: Detector,
        sinks: Sequence[Sink | SinkFactory] = (),
        *,
        class_name: str | None = None,
        policy: Policy | None = None,
        max_frames: int | None = None,
        alarm: AlarmRule = EVERY_FRAME,
    ) -> None:
        given = [source] if isinstance(source, str) or not isinstance(source, Sequence) else source
        sources = _opened(given)
        live = any(one.live for one in sources)
        policy = policy or (Policy.DROP_OLDEST if live else Policy.WAIT)
        config = PipelineConfig(
            policy=policy,
            class_name=class_name,
            max_frames=max_frames,
            workers=detector.workers,
            batch=min(detector.batch_size, len(sources)) if live else detector.batch_size,
            alarm=alarm,
        )
        self._results = _Results(policy)
        self._pipeline = Pipeline(sources, detector, [*sinks, self._results], config)
        self._detector, self._references = detector, LiveReferences(detector)
        self._class_name = class_name or detector.bundle.manifest.classes[0]
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="kanoclip-stream", daemon=True)
        self._thread.start()

    @property
    def summary(self) -> RunSummary:
        """What was done so far."""
        return self._pipeline.live.summary()

    def add_reference(self, image: Image | None = None, class_name: str | None = None) -> MemoryCount:
        """Adds a good frame to the memory that the detector scores a class by, from the next frame on.

        The first one makes the memory and sets the thresholds. Nothing is written.

        Args:
            image: The frame, uint8 [H, W, 3], BGR; None for the last one that was scored.
            class_name: What it shows; None for the class looked for.

        Returns:
            The memory's size with it.

        Raises:
            KanoclipError: The bundle takes no memory, the frame does not suit, or none has been scored yet.
        """
        name = class_name or self._class_name
        if image is not None:
            return self._references.add(FROM_OUTSIDE, self._detector.prepare(image, name), name)
        latest = self._pipeline.live.latest()
        return self._references.add(latest.name, latest.prepared, name)

    def __iter__(self) -> Iterator[tuple[Frame, Detection]]:
        """Yields each frame with its detection, in order; in a live stream those that the caller is in time for.

        Raises:
            KanoclipError: The source, the engine or a sink failed; what was scored before has been yielded.
        """
        with suppress(MailboxClosedError):
            while True:
                yield self._results.queue.get()
        self._join()

    def close(self) -> None:
        """Ends the stream after the frames in work, and waits until sources and sinks are closed.

        Raises:
            KanoclipError: Something failed, and no loop has raised it yet.
        """
        if self._thread.is_alive():
            self._pipeline.stop()
        self._results.queue.abort()
        self._join()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        with suppress(Exception):  # the caller's own error matters more
            self.close()

    def _run(self) -> None:
        """The thread that stands in for a program's main one."""
        try:
            self._pipeline.run()
        except BaseException as error:
            self._error = error
        finally:
            self._results.queue.close()

    def _join(self) -> None:
        self._thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error


class _Results(BaseSink):
    """Hands results to the caller's loop; one that has ended takes none, and holds nobody up."""

    name = "results"
    shows = True

    def __init__(self, policy: Policy) -> None:
        self.queue: Mailbox[tuple[Frame, Detection]] = Mailbox(1, policy)

    @property
    def dropped(self) -> int:
        """Results that the caller was too slow for."""
        return self.queue.dropped

    def write(self, frame: Frame, detection: Detection) -> None:
        """Waits for the caller where nothing may be lost."""
        with suppress(MailboxClosedError):
            self.queue.put((frame, detection))

    def skip(self, bad: BadFrame) -> None:
        """Logs it."""
        log.warning("%s: %s", bad.source, bad.reason)

    def close(self) -> None:
        """Lets the caller's loop end."""
        self.queue.close()


def _opened(given: Sequence[Source | str | Path | int]) -> list[Source]:
    """Opens those that are not open, and gives each its own name; if one fails, those before it are closed."""
    with ExitStack() as pending:
        opened = []
        for one in given:
            if isinstance(one, (str, Path)):
                source = open_stream(str(one))
            else:
                source = open_stream(str(one), camera=True) if isinstance(one, int) else one
            pending.callback(source.close)
            opened.append(source)
        sources = together(opened)
        pending.pop_all()
    return sources
