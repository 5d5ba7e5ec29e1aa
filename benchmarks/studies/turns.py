"""Short streams in turns: what else the machine does hits all that is compared."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import TypeVar

import numpy as np

K = TypeVar("K")

WARM_UP = 3
"""Rounds that do not count."""


def in_turns(runs: Mapping[K, Callable[[], object]], rounds: int, images: int) -> dict[K, list[float]]:
    """Milliseconds an image of each: of every turn the median.

    Args:
        runs: What scores an image.
        rounds: Turns of each that count, in another order each round.
        images: Of a turn, one after the other, as a stream has them.
    """
    times: dict[K, list[float]] = {title: [] for title in runs}
    order = random.Random(0)
    for number in range(rounds + WARM_UP):
        for title in order.sample(list(runs), len(runs)):
            ends = [perf_counter()]
            for _ in range(images):
                runs[title]()
                ends.append(perf_counter())
            if number >= WARM_UP:
                times[title].append(float(np.median(np.diff(ends))) * 1e3)
    return times
