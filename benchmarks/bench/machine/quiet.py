"""Whether anything else worked on this machine meanwhile: figures of a busy one mean little."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import psutil

from kanoclip.runtime.system.hardware import own_cores

OTHERS, STEAL, LOAD = 0.03, 0.01, 0.5
"""Shares of the processor's time that may go to other programs and to other virtual machines; load a core."""
HALVES, SPREAD = 0.05, 0.10
"""How far the medians of both halves may be apart, and the quartiles from each other, as shares of the median."""


@dataclass(frozen=True)
class Noise:
    """What else happened during a run.

    Attributes:
        load_before: Load average of the minute before; None where the system does not tell.
        others: Share of all cores' time that other programs used; None likewise.
        steal: Share that the host gave to other virtual machines; None likewise.
        spread: Of each runner, the distance of the quartiles of its rounds as a share of the median.
        halves: Of each runner, the second half's median over the first's, less 1.
        reasons: In words, why the machine was not quiet; empty when it was.
    """

    load_before: float | None
    others: float | None
    steal: float | None
    spread: dict[str, float]
    halves: dict[str, float]
    reasons: tuple[str, ...]

    @property
    def quiet(self) -> bool:
        """Whether the figures can be relied on."""
        return not self.reasons


@dataclass(frozen=True)
class _Clock:
    """Seconds since the start of the machine, all cores together, and of this process and its children."""

    busy: float
    steal: float
    total: float
    own: float


class Watch:
    """Looks at the system's clocks when it is made and when it is asked."""

    def __init__(self) -> None:
        self._load = _load()
        self._before = _clock()

    def noise(self, rounds: Mapping[str, Sequence[float]]) -> Noise:
        """What else happened since the watch was made.

        Args:
            rounds: Milliseconds of each runner's rounds.
        """
        others = steal = None
        now = _clock()
        if self._before is not None and now is not None and now.total > self._before.total:
            total = now.total - self._before.total
            steal = (now.steal - self._before.steal) / total
            others = max((now.busy - self._before.busy) - (now.own - self._before.own), 0.0) / total
        spread, halves = {}, {}
        for name, times in rounds.items():
            quarters = np.percentile(times, [25, 50, 75])
            spread[name] = float((quarters[2] - quarters[0]) / quarters[1])
            first, second = np.array_split(np.array(times), 2)
            halves[name] = float(np.median(second) / np.median(first)) - 1 if len(second) else 0.0
        return Noise(self._load, others, steal, spread, halves, _reasons(self._load, others, steal, spread, halves))


def _reasons(
    load: float | None,
    others: float | None,
    steal: float | None,
    spread: Mapping[str, float],
    halves: Mapping[str, float],
) -> tuple[str, ...]:
    found = []
    if others is not None and others > OTHERS:
        found.append(f"other programs used {others:.0%} of the processor's time")
    # The load average also counts what this user has just done, so it counts only where there is nothing better.
    if others is None and load is not None and load > LOAD * own_cores():
        found.append(f"the load average was {load:.1f} on {own_cores()} cores before the start")
    if steal is not None and steal > STEAL:
        found.append(f"the host gave {steal:.0%} of the processor's time to other virtual machines")
    for name, drift in halves.items():
        if abs(drift) > HALVES:
            found.append(f"{name} was {abs(drift):.0%} {'slower' if drift > 0 else 'faster'} in the second half")
    for name, share in spread.items():
        if share > SPREAD:
            found.append(f"half of the rounds of {name} are spread over {share:.0%} of their median")
    return tuple(found)


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def _clock() -> _Clock | None:
    """None where the system does not tell."""
    try:
        times = psutil.cpu_times()
    except (OSError, ValueError, IndexError, psutil.Error):
        return None
    busy = times.user + times.nice + times.system + times.irq + times.softirq
    own = sum(os.times()[:4])
    return _Clock(busy, times.steal, busy + times.idle + times.iowait + times.steal, own)
