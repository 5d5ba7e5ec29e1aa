"""When shifts begin, in the machine's local time: days of 23 and 25 hours included."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from kanoclip.runtime.errors import SettingsError

MOST = 24
_FORM = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")


@dataclass(frozen=True)
class ShiftPlan:
    """The times of day at which a shift ends and the next one begins; at least one, in order.

    Examples:
        >>> ShiftPlan.parse("14:00, 6:00,22:00").shown
        '06:00,14:00,22:00'
    """

    starts: tuple[time, ...]

    @classmethod
    def parse(cls, text: str) -> ShiftPlan:
        """Reads `6:00,14:00,22:00`.

        Raises:
            SettingsError: It is no such list.
        """
        found = set()
        for part in text.split(","):
            match = _FORM.fullmatch(part.strip())
            if match is None:
                raise SettingsError(f"{part.strip()!r} is no time of day: write shifts as 6:00,14:00,22:00")
            found.add(time(int(match[1]), int(match[2])))
        if len(found) > MOST:
            raise SettingsError(f"{len(found)} shifts a day are more than {MOST}: leave some out")
        return cls(tuple(sorted(found)))

    @property
    def shown(self) -> str:
        """As `parse` reads it."""
        return ",".join(f"{start:%H:%M}" for start in self.starts)

    def start_of(self, moment: float) -> float:
        """When the shift began that a moment belongs to; both Unix time in seconds."""
        today = datetime.fromtimestamp(moment).date()
        # Two days back: where clocks are set forward a time of day may not exist on one of them.
        days = (today - timedelta(days=back) for back in (-1, 0, 1, 2))
        return max(start for day in days for start in self._on(day) if start <= moment)

    def bucket_of(self, moment: float) -> float:
        """When the hour began that a moment belongs to; a shift that begins within an hour divides it."""
        local = datetime.fromtimestamp(moment)
        past = local.minute * 60 + local.second + local.microsecond / 1e6
        return max(float(round(moment - past)), self.start_of(moment))

    def _on(self, day: date) -> list[float]:
        return [datetime.combine(day, start).timestamp() for start in self.starts]
