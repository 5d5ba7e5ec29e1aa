"""Which attention blocks must be in float32 so that an engine gives the graph's answers on this GPU."""

from __future__ import annotations

from collections.abc import Callable

Passes = Callable[[frozenset[int]], bool]
"""Builds with these blocks in float32 and says whether the engine's answers keep within the bounds. Expensive."""


def find_fallback(blocks: int, passes: Passes) -> frozenset[int] | None:
    """Looks for a small set of blocks.

    First all of them, then halves, quarters and so on are given back to half precision while the engine still passes:
    about 2 k log2(blocks) builds for k bad blocks, where one by one would be `blocks` of them.

    Args:
        blocks: How many there are.
        passes: Scores one choice.

    Returns:
        A set that passes and from which no single block can be left out; None when even all of them do not help, so
        that the fault lies elsewhere.
    """
    chosen = frozenset(range(blocks))
    if not passes(chosen):
        return None
    size = max(len(chosen) // 2, 1)
    while chosen:
        smaller = _without_a_part(chosen, size, passes)
        if smaller is not None:
            chosen = smaller
            size = min(size, max(len(chosen) // 2, 1))
        elif size == 1:
            break
        else:
            size = max(size // 2, 1)
    return chosen


def _without_a_part(chosen: frozenset[int], size: int, passes: Passes) -> frozenset[int] | None:
    order = sorted(chosen)
    for start in range(0, len(order), size):
        smaller = chosen.difference(order[start : start + size])
        if smaller != chosen and passes(smaller):
            return smaller
    return None
