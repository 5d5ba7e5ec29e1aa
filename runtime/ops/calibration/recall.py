"""How much of what is bad is found, against how often what is good is called anomalous."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.detect.learning.binomial import clopper_pearson
from kanoclip.runtime.detect.learning.conformal import best_rate, bound
from kanoclip.runtime.ops.calibration.calibrate import INTERVAL

Values = npt.NDArray[np.float64]
RATES = (0.01, 0.02, 0.05, 0.10)
"""False-positive rates that are reported."""
BAR = 40
"""Characters of a bar."""
ALL = "all"
"""Name of the row of all bad frames."""


@dataclass(frozen=True)
class Recall:
    """Of a folder of defects.

    Attributes:
        name: The folder's, or ALL.
        frames: How many bad frames it has.
        shares: Found at each of RATES, in [0, 1].
        low: Lower ends of their exact intervals.
        high: Upper ends.
    """

    name: str
    frames: int
    shares: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class RecallTable:
    """Recall by folder.

    Attributes:
        thresholds: For each of RATES.
        rates: What the thresholds keep: larger than in RATES where good frames are too few for that.
        folders: One for each, and ALL last.
    """

    thresholds: tuple[float, ...]
    rates: tuple[float, ...]
    folders: tuple[Recall, ...]

    def at(self, rate: float) -> float:
        """Share of all bad frames that is found at one of RATES."""
        return self.folders[-1].shares[RATES.index(rate)]

    def held(self, rate: float) -> float:
        """What good frames can be held to where one of RATES is wanted."""
        return self.rates[RATES.index(rate)]

    def as_json(self) -> dict[str, Any]:
        """The table as JSON values; rates are shares."""
        return {
            "rates": list(RATES),
            "rates_held": list(self.rates),
            "thresholds": list(self.thresholds),
            "folders": [asdict(folder) for folder in self.folders],
        }


def recall_table(good: Values, bad: dict[str, Values]) -> RecallTable:
    """Recall at the conformal thresholds of RATES.

    Args:
        good: Scores of good frames out of sample, at least one.
        bad: Scores of bad frames by folder, at least one each.
    """
    rates = tuple(max(rate, best_rate(len(good))) for rate in RATES)
    ordered = np.sort(good)
    # Just above the value of its rank, as `Bound.threshold`; here a value of 1 is no error, for nothing is set by it.
    thresholds = tuple(float(ordered[bound(len(good), rate).rank - 1]) for rate in rates)
    every = bad | {ALL: np.concatenate(list(bad.values()))}
    return RecallTable(thresholds, rates, tuple(_recall(name, values, thresholds) for name, values in every.items()))


def curve(good: Values, bad: Values) -> tuple[Values, Values]:
    """Recall against false-positive rate at every threshold: two arrays that begin with 0 and end with 1."""
    levels = np.unique(np.concatenate([good, bad]))[::-1]
    false, true = ((values[:, None] >= levels).mean(0) for values in (good, bad))
    return np.concatenate([[0.0], false]), np.concatenate([[0.0], true])


def table_lines(table: RecallTable) -> list[str]:
    """Recall by folder as lines of a table, and that of all frames as bars.

    A rate that good frames are too few for is the one that they keep.
    """
    # Several rates that good frames are too few for are held at one.
    shown = [n for n, held in enumerate(table.rates) if held not in table.rates[n + 1 :]]
    short = [table.rates[n] > RATES[n] * (1 + 1e-6) for n in shown]
    heads = [f"{100 * table.rates[n]:.2g}%*" if few else f"{RATES[n]:.0%}" for n, few in zip(shown, short, strict=True)]
    width = max(30, *(len(folder.name) + 2 for folder in table.folders))
    lines = [f"{'recall at false positives of':<{width}}{'frames':>7}" + "".join(f"{head:>8}" for head in heads)]
    for folder in table.folders:
        shares = "".join(f"{folder.shares[n]:>8.1%}" for n in shown)
        lines.append(f"{folder.name:<{width}}{folder.frames:>7}{shares}")
    for head, n in zip(heads, shown, strict=True):
        share = table.folders[-1].shares[n]
        full = round(share * BAR)
        lines.append(f"{head:>7} {'█' * full}{'░' * (BAR - full)} {share:.0%}")
    if any(short):
        lines.append("* the least rate that so many good frames can be held to")
    return lines


def _recall(name: str, values: Values, thresholds: tuple[float, ...]) -> Recall:
    hits = [int((values > threshold).sum()) for threshold in thresholds]
    low, high = zip(*(clopper_pearson(one, len(values), INTERVAL) for one in hits), strict=True)
    return Recall(name, len(values), tuple(one / len(values) for one in hits), low, high)
