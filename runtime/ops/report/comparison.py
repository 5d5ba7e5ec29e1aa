"""What has changed between a table and its reference, in figures and in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kanoclip.runtime.ops.report.drift import Drift, Shift, Values, compare, find_shift
from kanoclip.runtime.ops.report.results import MEASURES, Results

MEANINGS = {
    "score": "other parts, other defects, or one of the causes below",
    "brightness": "lighting, exposure or aperture",
    "contrast": "lighting, haze on the lens, or other parts",
    "sharpness": "focus, motion, or dirt on the lens",
    "red": "colour of the light, or white balance",
    "green": "colour of the light, or white balance",
    "blue": "colour of the light, or white balance",
}
"""What a change of a figure hints at."""
LEVELS = ("none", "slight", "marked")


@dataclass(frozen=True)
class Move:
    """Consecutive images that are shifted.

    Attributes:
        first: Row of the first of them.
        last: Row of the last one; both as finely as mean images were saved.
        shift: The largest of their pieces'.
    """

    first: int
    last: int
    shift: Shift


@dataclass(frozen=True)
class Comparison:
    """Everything that is compared.

    Attributes:
        drifts: Of the score and of each measure.
        moves: Where the images are shifted against the reference's mean.
        remarks: Other differences that bear on the figures, each a sentence.
    """

    drifts: tuple[Drift, ...]
    moves: tuple[Move, ...]
    remarks: tuple[str, ...]

    @property
    def level(self) -> str:
        """The highest of all."""
        found = [LEVELS.index(drift.level) for drift in self.drifts]
        return LEVELS[max([*found, 2 if self.moves else 0])]

    def sentences(self) -> list[str]:
        """What has changed, the most telling first."""
        lines = []
        for move in self.moves:
            across, down = move.shift.across, move.shift.down
            sideways = f"{abs(across):.1%} of the width to the {'right' if across > 0 else 'left'}"
            upright = f"{abs(down):.1%} of the height {'down' if down > 0 else 'up'}"
            rows = f"{move.first + 1:,} to {move.last + 1:,}"
            lines.append(f"Images {rows} are shifted by {sideways} and {upright}: the camera or the fixture moved")
        changed = sorted((one for one in self.drifts if one.level != "none"), key=lambda one: -one.distance)
        for meaning in dict.fromkeys(MEANINGS[one.name] for one in changed):
            alike = [one for one in changed if MEANINGS[one.name] == meaning]
            names = ", ".join(one.name for one in alike)
            medians = ", ".join(f"{one.before:.3g} to {one.now:.3g}" for one in alike)
            lines.append(
                f"{names.capitalize()} differ{'s' if len(alike) == 1 else ''} in at least {alike[0].distance:.0%} of "
                f"the images (median {medians}): {meaning}"
            )
        return lines


def compare_results(before: Results, now: Results) -> Comparison:
    """Compares a table with its reference."""
    drifts = [compare("score", _known(before.scores), _known(now.scores))]
    drifts += [compare(name, _known(before.measures[name]), _known(now.measures[name])) for name in MEASURES]
    moves = find_moves(now, shifts(now, mean_image(before)))
    return Comparison(tuple(one for one in drifts if one is not None), tuple(moves), tuple(_remarks(before, now)))


def shifts(results: Results, base: Values | None) -> list[Shift | None]:
    """By how much the mean image of each piece of a run is shifted; None where it is not known.

    Args:
        results: The run.
        base: Mean image that they are compared with.
    """
    found = [None if base is None or mean is None else find_shift(base, mean) for mean in block_means(results)]
    return [one if one is not None and one.known else None for one in found]


def find_moves(results: Results, found: list[Shift | None]) -> list[Move]:
    """Pieces that are shifted, those beside each other as one."""
    moves: list[Move] = []
    start, open_ = 0, False
    for block, shift in zip(results.blocks, found, strict=True):
        end = start + block["rows"]
        moved = shift is not None and shift.moved
        if shift is not None and moved:
            if open_:
                largest = max(moves[-1].shift, shift, key=lambda one: one.length)
                moves[-1] = Move(moves[-1].first, end - 1, largest)
            else:
                moves.append(Move(start, end - 1, shift))
        start, open_ = end, moved
    return moves


def mean_image(results: Results) -> Values | None:
    """Mean grey image, float64 [64, 64] in 0..255; None where no image was scored."""
    scored = int(results.scored.sum())
    return None if scored == 0 else results.sums.sum(axis=0) / scored


def block_means(results: Results) -> list[Values | None]:
    """The same of each piece of the run."""
    return [
        sums / block["scored"] if block["scored"] else None
        for sums, block in zip(results.sums.astype(np.float64), results.blocks, strict=True)
    ]


def _remarks(before: Results, now: Results) -> list[str]:
    lines = []
    if before.run["bundle_sha256"] != now.run["bundle_sha256"]:
        lines.append("The reference was scored with another bundle: its scores are not comparable, the measures are.")
    elif (before.run["backend"], before.run["device"]) != (now.run["backend"], now.run["device"]):
        lines.append(
            f"The reference was scored with {before.run['backend']} on {before.run['device']}, this by "
            f"{now.run['backend']} on {now.run['device']}: scores differ a little by that."
        )
    old, new = ((~one.scored).mean() for one in (before, now))
    if new > old:
        lines.append(f"{new:.2%} of the images have no score, {old:.2%} in the reference.")
    return lines


def _known(values: Values) -> Values:
    return values[~np.isnan(values)]
