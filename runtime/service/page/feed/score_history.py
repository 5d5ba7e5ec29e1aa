"""Scores of the last hour in bounded memory, fine for the last minute and coarser before."""

from __future__ import annotations

from collections import deque
from itertools import takewhile

BUCKETS = 300
SPANS_S = (60, 600, 3600)
"""What a browser can look at."""

Bucket = tuple[int, float, float, int]
"""Number of the bucket, smallest and largest score in it, 1 if one of its frames was anomalous."""


class ScoreHistory:
    """The scores of one span of time, in buckets of `span / BUCKETS` seconds, empty ones left out.

    Smallest and largest score stay, never a mean: one bad frame in an hour must stay visible.

    Args:
        span_s: Seconds to remember.
    """

    def __init__(self, span_s: float) -> None:
        self.width_s = span_s / BUCKETS
        self._buckets: deque[Bucket] = deque(maxlen=BUCKETS)

    def add(self, now: float, score: float, anomalous: bool) -> None:
        """Takes a frame's score.

        Args:
            now: Monotonic time in seconds; never smaller than the one before.
            score: In [0, 1].
            anomalous: Its verdict.
        """
        key, flag = int(now / self.width_s), int(anomalous)
        if self._buckets and self._buckets[-1][0] == key:
            _, low, high, before = self._buckets[-1]
            self._buckets[-1] = (key, min(low, score), max(high, score), before | flag)
        else:
            self._buckets.append((key, score, score, flag))

    def since(self, key: int, now: float) -> list[Bucket]:
        """Buckets from number `key` on that have not left the span; the last one may still grow."""
        oldest = max(key, int(now / self.width_s) - BUCKETS + 1)
        rows = list(takewhile(lambda bucket: bucket[0] >= oldest, reversed(self._buckets)))
        rows.reverse()
        return rows
