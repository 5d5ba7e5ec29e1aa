"""When a frame was captured, found from when it arrived and from the stream's own clock.

What comes out of a connection first is old: FFmpeg buffers a second or more of frames while it finds out what the
stream is, and some servers send the images since the last key frame. Stamped with the time at which they are read,
they would all seem to be of now (measured on loopback: 1.1 s wrong). The same goes for what piles up while a network
or this program was held up.
"""

from __future__ import annotations

import time
from collections import deque
from itertools import pairwise

SETTLE_S = 3.0
"""A stream that never seems to keep pace is believed after so many seconds."""

_WINDOW_S, _IN_STEP = 0.3, 0.85
"""Frames are of now when those of so many seconds took so much of that time to come: a burst takes hardly any."""
_STEPS, _EACH = 3, 0.25
"""And when each of the last ones took its share, since a busy machine may hold up a frame of a burst, too."""
_UNCLOCKED_STEPS = 2
_UNCLOCKED_GAP_S = 0.015
"""The same where the stream has no clock: decoding takes less, and hardly any such stream has 60 fps."""
_DRIFT = 2e-4
"""How fast the camera's clock may go wrong against ours; quartz keeps within half of that."""
_MOST_LAG_S = 20.0
"""A frame that seems older does so because the stream's clock is no clock."""
_SILENCE_S = 1.0
"""After such a gap, what comes at once from a stream without a clock may have piled up in it."""


def wall_time(monotonic: float) -> float:
    """Unix time of an instant on `time.monotonic`'s clock, which nobody sets."""
    return time.time() - (time.monotonic() - monotonic)


class StreamClock:
    """Tells the time of capture of one connection's frames.

    The least that arrival was ever behind the stream's clock is taken as the way of a frame that nothing held up; it
    may grow by `_DRIFT` only. So a frame that waited somewhere is stamped with its own time, and not with the time at
    which it came out.

    Args:
        settle_s: After the opening, frames are of unknown age until they come in step, for up to so many seconds.
    """

    def __init__(self, settle_s: float = SETTLE_S) -> None:
        self._settle_s = settle_s
        self._settled = settle_s <= 0
        self._believed = False  # settled for want of anything better
        self._settling_since: float | None = None
        self._recent: deque[tuple[float, float]] = deque()  # arrival and the stream's clock, while settling
        self._delay: float | None = None  # arrival minus the stream's clock, at its least
        self._arrived: float | None = None
        self._ticks: float | None = None
        self._apart = 0  # frames in a row that were waited for, of a stream without a clock

    def captured(self, arrived: float, ticks: float | None) -> float | None:
        """Takes the next frame's times.

        Args:
            arrived: When it came, on `time.monotonic`'s clock.
            ticks: Its time on the stream's clock in seconds, from wherever that starts; None where there is no clock.

        Returns:
            When it was captured, on `time.monotonic`'s clock; None when it is of unknown age, and better let go.
        """
        before, ticks_before = self._arrived, self._ticks
        self._arrived, self._ticks = arrived, ticks
        gap = None if before is None else arrived - before
        if ticks is None:
            return self._without_clock(arrived, gap)
        step = None if ticks_before is None else ticks - ticks_before
        if step is not None and step <= 0:  # the stream's clock was set, or does not run at all
            self._delay = None
            if step < 0:
                self._unsettle()
        delay = arrived - ticks
        if self._delay is None:
            known = delay
        else:
            known = min(delay, self._delay + _DRIFT * (gap or 0.0))
            late = step is not None and self._delay - delay > step / 2  # those before it were all late: a burst
            if late and self._settled and not self._believed:
                self._unsettle()
        if delay - known > _MOST_LAG_S:
            known = delay
        self._delay = known
        return ticks + known if self._is_settled(arrived, self._in_step(arrived, ticks)) else None

    def _in_step(self, arrived: float, ticks: float) -> bool:
        """Whether the last frames, one by one and together, took their time to come."""
        if self._settled and not self._believed:
            return True
        self._recent.append((arrived, ticks))
        while len(self._recent) > 2 and ticks - self._recent[1][1] >= _WINDOW_S:
            self._recent.popleft()
        pairs = list(self._recent)
        if pairs[-1][1] - pairs[0][1] < _WINDOW_S:
            return False
        if pairs[-1][0] - pairs[0][0] < _IN_STEP * (pairs[-1][1] - pairs[0][1]):
            return False
        steps = list(pairwise(pairs))[-_STEPS:]
        return all(end[0] - start[0] >= _EACH * (end[1] - start[1]) for start, end in steps)

    def _without_clock(self, arrived: float, gap: float | None) -> float | None:
        if gap is not None and gap > _SILENCE_S:
            self._unsettle()
            gap = None
        self._apart = self._apart + 1 if gap is not None and gap >= _UNCLOCKED_GAP_S else 0
        return arrived if self._is_settled(arrived, self._apart >= _UNCLOCKED_STEPS) else None

    def _unsettle(self) -> None:
        self._settled, self._believed, self._settling_since = self._settle_s <= 0, False, None
        self._recent.clear()
        self._apart = 0

    def _is_settled(self, arrived: float, in_step: bool) -> bool:
        if in_step:
            self._settled, self._believed = True, False
            self._recent.clear()
        elif not self._settled:
            if self._settling_since is None:
                self._settling_since = arrived
            self._settled = self._believed = arrived - self._settling_since >= self._settle_s
        return self._settled
