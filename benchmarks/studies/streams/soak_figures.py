"""What the samples of a soak show: trends, whether it grows, and the curves."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kanoclip.benchmarks.studies.line_plot import Panel, draw_panels
from kanoclip.benchmarks.studies.streams.process_samples import ProcessSample
from kanoclip.benchmarks.studies.streams.trend import grows, trend

MB_AN_HOUR = 1.0
"""Growth that is let pass."""


@dataclass(frozen=True)
class Moment:
    """What is known once a second.

    Attributes:
        second: Since the first one.
        process: What kanoclip-run uses.
        frames: Scored so far.
        dropped: Frames that it was too slow for.
        shown: Images that the page's client has got.
    """

    second: float
    process: ProcessSample
    frames: int
    dropped: int
    shown: int


def assess(
    moments: Sequence[Moment], fps: float, settle_s: float, limit_mb_an_hour: float = MB_AN_HOUR
) -> dict[str, Any]:
    """What the samples show, the warm-up left out.

    Args:
        moments: As `soak` gives them.
        fps: The source's rate.
        settle_s: The warm-up: engines and allocators reach their working size.
        limit_mb_an_hour: Growth that is let pass.

    Returns:
        JSON values: trends with their intervals; `grows`, whether growth above the limit is sure; the least and the
        most threads and open files of the first and of the last sixth.
    """
    late = [moment for moment in moments if moment.second >= settle_s]
    seconds = [moment.second for moment in late]
    processes = [moment.process for moment in late]
    anonymous = [process.anonymous_mb for process in processes]
    rates, costs = _rates(late)
    spans = seconds[1:]
    rate = trend(spans, rates, reduce=np.mean)
    cost = trend(spans, costs, reduce=np.mean)
    frames, dropped = late[-1].frames - late[0].frames, late[-1].dropped - late[0].dropped
    return {
        "seconds": late[-1].second - late[0].second,
        "settle_s": settle_s,
        "frames": frames,
        "dropped": dropped,
        "source_fps": fps,
        "fps": frames / (late[-1].second - late[0].second),
        "fps_trend": asdict(rate),
        "fps_change": _change(rate.per_hour, rate.hours, rate.mean),
        "fps_change_interval": [_change(end, rate.hours, rate.mean) for end in (rate.low, rate.high)],
        "cpu_ms_a_frame": asdict(cost),
        "rss_mb": asdict(trend(seconds, [process.rss_mb for process in processes], reduce=np.min)),
        "anonymous_mb": asdict(trend(seconds, anonymous, reduce=np.min)),
        "grows": grows(seconds, anonymous, limit_mb_an_hour),
        "threads": _ends([process.threads for process in processes]),
        "files": _ends([process.files for process in processes]),
        "shown": late[-1].shown - late[0].shown,
    }


def plot(moments: Sequence[Moment], settle_s: float) -> Any:
    """The samples as an image, uint8 [height, width, 3], BGR."""
    later = moments[1:]
    processes = [moment.process for moment in later]
    rates, _ = _rates(moments)
    smooth = np.convolve(np.pad(rates, 5, mode="edge"), np.ones(11) / 11, "valid")
    panels = (
        Panel("fps, over 11 s", (("", list(smooth)),), 2.0),
        Panel(
            "memory, MB",
            (("resident", [one.rss_mb for one in processes]), ("anonymous", [one.anonymous_mb for one in processes])),
            4.0,
        ),
        Panel(
            "", (("threads", [one.threads for one in processes]), ("open files", [one.files for one in processes])), 8.0
        ),
    )
    return draw_panels([moment.second for moment in later], panels, settle_s)


def _ends(counts: Sequence[int]) -> dict[str, list[int]]:
    """Least and most at the beginning and at the end; a request has a thread and a file for a moment."""
    part = max(len(counts) // 6, 1)
    return {"first": [min(counts[:part]), max(counts[:part])], "last": [min(counts[-part:]), max(counts[-part:])]}


def _rates(moments: Sequence[Moment]) -> tuple[list[float], list[float]]:
    """fps, and milliseconds of processor time a frame, between each moment and the next."""
    rates, costs = [], []
    for one, two in itertools.pairwise(moments):
        frames, passed = two.frames - one.frames, two.second - one.second
        rates.append(frames / passed)
        costs.append((two.process.cpu_s - one.process.cpu_s) * 1e3 / max(frames, 1))
    return rates, costs


def _change(per_hour: float, hours: float, mean: float) -> float:
    """A trend as a share of the mean, from beginning to end."""
    return per_hour * hours / mean if mean else 0.0
