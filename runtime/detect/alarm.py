"""From the verdicts on single frames to a stream's alarm: hysteresis over the last frames."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from kanoclip.runtime.errors import SettingsError

LONGEST = 10_000
"""Most frames that a rule may look back on."""


@dataclass(frozen=True, slots=True)
class AlarmRule:
    """When a stream's alarm is raised and when it is cleared.

    It is raised with the frame that makes at least `frames` of the last `of` anomalous, and cleared with the one after
    which at most `clear` of them are. The default repeats each frame's own verdict.

    A frame can only raise an alarm if it is anomalous itself, so alarms are raised no more often than single frames
    are called anomalous. An alarm may stay up while normal frames pass.

    Attributes:
        frames: k, at least 1.
        of: n, at least k.
        clear: From 0 to k - 1; None for k - 1, so that the alarm is up just while k of n are anomalous.

    Raises:
        SettingsError: The numbers contradict each other.
    """

    frames: int = 1
    of: int = 1
    clear: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= self.of <= LONGEST:
            raise SettingsError(f"alarm {self}: K of the last N frames needs 1 <= K <= N <= {LONGEST}")
        if self.clear is not None and not 0 <= self.clear < self.frames:
            raise SettingsError(f"alarm {self}: it must be cleared at 0 to K - 1 anomalous frames")

    @classmethod
    def parse(cls, text: str) -> AlarmRule:
        """Reads `K/N` or `K/N/CLEAR`, such as `3/5`.

        Raises:
            SettingsError: It is no such text.
        """
        parts = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})(?:/([0-9]{1,6}))?", text)
        if parts is None:
            raise SettingsError(f"alarm {text!r} is not K/N or K/N/CLEAR, such as 3/5 or 3/5/0")
        frames, of, clear = parts.groups()
        return cls(int(frames), int(of), None if clear is None else int(clear))

    @property
    def clears_at(self) -> int:
        """At how many anomalous frames among the last `of` it is cleared."""
        return self.frames - 1 if self.clear is None else self.clear

    def __str__(self) -> str:
        return f"{self.frames}/{self.of}" + ("" if self.clear is None else f"/{self.clear}")


EVERY_FRAME = AlarmRule()
"""The alarm is each frame's own verdict."""


class Alarm:
    """The alarm of one stream. Not for use by several threads at once.

    Frames that were dropped or could not be read are not counted, and the time between frames does not matter.

    Args:
        rule: When it is raised and cleared at first.
        class_name: What the frames are scored for at first; None for the bundle's default.
    """

    def __init__(self, rule: AlarmRule, class_name: str | None = None) -> None:
        self._rule, self._class_name = rule, class_name
        self._last: deque[bool] = deque(maxlen=rule.of)
        self._anomalous = 0
        self._up = False

    def update(self, is_anomalous: bool) -> bool:
        """Takes the next frame's verdict; returns whether the alarm is up."""
        if len(self._last) == self._rule.of:
            self._anomalous -= self._last[0]
        self._last.append(is_anomalous)
        self._anomalous += is_anomalous
        if self._anomalous >= self._rule.frames:
            self._up = True
        elif self._anomalous <= self._rule.clears_at:
            self._up = False
        return self._up

    def follow(self, rule: AlarmRule, class_name: str | None = None) -> None:
        """Goes by a rule from the next frame on; it looks back on verdicts over the same class only."""
        if class_name != self._class_name:
            self._last.clear()
            self._up = False
        elif rule == self._rule:
            return
        self._rule, self._class_name = rule, class_name
        self._last = deque(self._last, maxlen=rule.of)
        self._anomalous = sum(self._last)
