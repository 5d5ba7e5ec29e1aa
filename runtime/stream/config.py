"""How frames flow through a stream, what scores them, and what for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from kanoclip.runtime.detect.alarm import EVERY_FRAME, AlarmRule
from kanoclip.runtime.detect.preprocess import Prepared
from kanoclip.runtime.system.queues import Policy
from kanoclip.runtime.types import Detection, Image


@dataclass(frozen=True, slots=True)
class Criteria:
    """What frames are scored for, and the alarm's rule. Both change together, between one frame and the next.

    Attributes:
        class_name: Class to look for; None for the bundle's default.
        alarm: When a source's alarm is raised and cleared.
    """

    class_name: str | None = None
    alarm: AlarmRule = EVERY_FRAME


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """How frames flow.

    Attributes:
        policy: What a full mailbox does.
        class_name: Class to look for at first; None for the bundle's default.
        max_frames: Stop after this many scored frames; None for no limit.
        workers: Threads that score side by side; the detector must allow it. Results keep their order.
        batch: Most frames that a thread scores at once. It takes what is there and waits for no more.
        in_flight: Batches that a thread begins before it waits for the first of them; the detector must allow it. It
            begins another one only where that many frames wait already.
        sink_capacity: Results of a source that may wait for each sink.
        alarm: When a source's alarm is raised and cleared at first.
        hold_screen: Keep the screen open after the last frame until the user closes it.
        closed_to_sources: Why no source may join while the run goes on; None where one may, if frames may be dropped.
    """

    policy: Policy
    class_name: str | None = None
    max_frames: int | None = None
    workers: int = 1
    batch: int = 1
    in_flight: int = 1
    sink_capacity: int = 4
    alarm: AlarmRule = EVERY_FRAME
    hold_screen: bool = False
    closed_to_sources: str | None = None

    @property
    def criteria(self) -> Criteria:
        """What frames are scored for at first."""
        return Criteria(self.class_name, self.alarm)

    def room(self, sources: int) -> int:
        """How many frames of each of some sources may wait to be scored."""
        if self.policy is Policy.WAIT:
            # No worker should have to wait for a frame. The sources share the frames that are read ahead.
            return max(2, -(-(self.workers * self.batch * self.in_flight + 1) // sources))
        # One frame is enough for a live view: a second would only age.
        return self.batch if sources == 1 else 1


class FrameDetector(Protocol):
    """The part of `Detector` that a stream needs."""

    def prepare(self, frame: Image, class_name: str | None = None, size: tuple[int, int] | None = None) -> Prepared:
        """Resizes a frame, uint8 [H, W, 3] BGR, of an image of (height, width) `size`."""
        ...

    def submit(self, frames: Sequence[Prepared], class_name: str | None = None) -> Callable[[], list[Detection]]:
        """Begins to score prepared frames; what it returns waits for their detections, in their order, once."""
        ...
