"""Whether a part can be inspected with a memory, and what to try next: by rules, from numbers.

With bad frames it is the recall at 5 % false positives that decides: from USABLE on the part is usable, from CARE on
with care. Fewer than FEW references are never more than usable with care.

Without bad frames it is never more than that either, for nothing is known of defects: two sets of 20 references whose
good frames were equally alike had a recall of 13 and of 100 %. What is known is how far good frames are from each
other. What has nothing in common with the part is at a distance of about 1: where good frames come near to that, no
defect can stand out, and the part is not usable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from kanoclip.runtime.detect.reference.fit import SHARPNESS
from kanoclip.runtime.detect.reference.memory import ReferenceMemory
from kanoclip.runtime.detect.tiles import auto_grid

USABLE, CARE = 0.8, 0.5
"""Least recall at 5 % false positives."""
FAR = 0.85
"""Largest distance at the threshold."""
FEW = 10
"""With fewer references the threshold keeps no rate below 10 %, and the memory has seen too little."""
ENOUGH = 50
"""From here on more references hardly help."""
RATE = 0.05
SHRUNK = 1.5
"""A frame that is so many times the model's size, or more, loses detail that tiles would show."""


@dataclass(frozen=True)
class Verdict:
    """What to make of a memory.

    Attributes:
        word: `usable`, `usable with care` or `not usable`.
        why: The number that decided.
        next_steps: What to try, the most promising first.
    """

    word: str
    why: str
    next_steps: tuple[str, ...]


def decide(
    memory: ReferenceMemory,
    threshold: float,
    recall: float | None,
    *,
    held: float = RATE,
    frame_size: tuple[int, int],
    model_size: tuple[int, int],
) -> Verdict:
    """Decides by the rules above.

    Args:
        memory: The memory.
        threshold: Image threshold.
        recall: At 5 % false positives, or at the rate that is held; None without bad frames.
        held: The least rate from RATE on that so many references can be held to.
        frame_size: (height, width) of the frames.
        model_size: (height, width) of the graph's image.
    """
    count = memory.different
    if recall is not None:
        grade = 0 if recall >= USABLE else 1 if recall >= CARE else 2
        why = f"{recall:.0%} of the bad frames are found at {held:.0%} false positives"
    else:
        distance = distance_at(memory, threshold)
        grade = 1 if distance <= FAR else 2
        why = (
            f"without bad frames no one knows what it finds; good frames reach a distance of {distance:.2f}, and what "
            "has nothing in common with them one of about 1"
        )
    if count < FEW and grade == 0:
        grade, why = 1, f"{why}; but {count} reference{'s are' if count > 1 else ' is'} too few to be sure"
    steps = []
    if recall is None:
        steps.append("measure it on bad frames with --bad FOLDER")
    if grade or count < FEW:
        if count < ENOUGH:
            steps.append(f"more good references than {count}, up to {ENOUGH}, over all that varies on the line")
        shrunk = max(side / own for side, own in zip(frame_size, model_size, strict=True))
        if memory.tiles is None and shrunk >= SHRUNK:
            grid = auto_grid(*frame_size, model_size)
            tiles = grid.title if grid.count > 1 else "2x2"  # a square has no long side to cut by itself
            steps.append(
                f"tiles, for the frame is {shrunk:.1f} times the model's size: --tiles {tiles} --output NAME.kanoclip"
            )
        if grade:
            steps.append(
                "a larger tower: kanoclip-export --backbone vit-l-14-336 --prompts handcrafted, and learn into that"
            )
    return Verdict(("usable", "usable with care", "not usable")[grade], why, tuple(steps))


def distance_at(memory: ReferenceMemory, threshold: float) -> float:
    """The distance at which a pixel whose zero-shot map is average reaches a threshold."""
    share = min(max(threshold, 1e-6), 1 - 1e-6)
    logit = math.log(share / (1 - share))
    return memory.fusion.offset + (logit + SHARPNESS) / memory.fusion.gain
