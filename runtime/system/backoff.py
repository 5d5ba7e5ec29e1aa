"""How long to wait before the next try."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Waits that double up to a limit, each scattered so that many who lost the same thing do not come back as one.

    Attributes:
        first_s: The first wait in seconds.
        most_s: The longest one, before it is scattered.
        scatter: By which part a wait may be shorter or longer, in [0, 1).
    """

    first_s: float = 0.2
    most_s: float = 1.5
    scatter: float = 0.25

    def waits(self, chance: random.Random | None = None) -> Iterator[float]:
        """Yields wait after wait, in seconds, without end."""
        draw = chance or random.Random()
        wait = self.first_s
        while True:
            yield min(wait, self.most_s) * draw.uniform(1 - self.scatter, 1 + self.scatter)
            wait = min(2 * wait, self.most_s)
