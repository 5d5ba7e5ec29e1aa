"""Which of a stream's results are worth telling."""

from __future__ import annotations

from enum import Enum

from kanoclip.runtime.types import Detection, Frame


class Events(str, Enum):
    """What a sink for events takes."""

    ANOMALIES = "anomalies"
    """Every anomalous frame."""
    ALARMS = "alarms"
    """The frame that raises a stream's alarm, and the one that clears it."""
    FRAMES = "frames"
    """Every scored frame."""


class EventFilter:
    """Picks the results that a sink takes; remembers each stream's alarm. Not for use by several threads at once."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._alarms: dict[str, bool] = {}

    def takes(self, frame: Frame, detection: Detection) -> bool:
        """Whether a result is one of those wanted; must see every result of the stream."""
        if self._events is Events.FRAMES:
            return True
        if self._events is Events.ANOMALIES:
            return bool(detection.is_anomalous)
        alarm = bool(detection.is_anomalous if detection.alarm is None else detection.alarm)
        before = self._alarms.get(frame.stream, False)
        self._alarms[frame.stream] = alarm
        return alarm is not before
