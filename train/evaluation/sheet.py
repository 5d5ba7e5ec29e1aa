"""An image sheet of the best and the worst cases: input, mask, map, overlay."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import cv2
import numpy as np

from kanoclip.runtime.detect.preprocess import resize
from kanoclip.runtime.errors import KanoclipError
from kanoclip.runtime.sinks.draw.heat_map import paint_heat_map
from kanoclip.runtime.sinks.draw.palette import coloured
from kanoclip.runtime.system.files.own import mark_file
from kanoclip.runtime.system.paths import replace_file
from kanoclip.runtime.types import Image
from kanoclip.train.evaluation.evaluate import Case

TILE = 224
SUFFIXES = (".png", ".jpg", ".jpeg")
_GAP = 6
_LINE = 34
_HEADING = 30
_INK = (40, 40, 40)
_PAPER = (250, 250, 250)
_NO_MASK = (215, 215, 215)
_MIDDLE = 0.5
"""Where an evaluation's colours begin: it has no pixel threshold."""

TITLES = {
    "missed": "anomalous, lowest scores: the worst misses",
    "alarms": "normal, highest scores: the worst false alarms",
    "caught": "anomalous, highest scores",
    "passed": "normal, lowest scores",
}
"""The four kinds of cases, worst first."""


@dataclass(order=True)
class _Ranked:
    rank: tuple[float, int]
    case: Case


class CaseKeeper:
    """Keeps the most telling cases of each kind while an evaluation runs, at a size that a sheet needs."""

    def __init__(self, each: int) -> None:
        """Keeps `each` cases of a kind, at least 1."""
        self.each = each
        self._best: dict[str, list[_Ranked]] = {kind: [] for kind in TITLES}
        self._number = count()

    def __call__(self, case: Case) -> None:
        """Considers a case."""
        kinds = {"missed": -1, "caught": 1} if case.sample.anomalous else {"alarms": 1, "passed": -1}
        small = None
        for kind, sign in kinds.items():
            # A heap's first element is the least telling; earlier cases win ties.
            heap, rank = self._best[kind], (sign * case.score, -next(self._number))
            if len(heap) == self.each and rank < heap[0].rank:
                continue
            small = small or replace(case, image=resize(case.image, TILE, TILE))
            (heapq.heappushpop if len(heap) == self.each else heapq.heappush)(heap, _Ranked(rank, small))

    def kind(self, name: str) -> list[Case]:
        """Cases of a kind, the most telling first."""
        return [ranked.case for ranked in sorted(self._best[name], reverse=True)]


def write_sheet(path: Path, keeper: CaseKeeper) -> None:
    """Draws the sheet.

    Args:
        path: Ends in one of `SUFFIXES`.
        keeper: After the evaluation.

    Raises:
        KanoclipError: The image cannot be written.
    """
    _, content = cv2.imencode(path.suffix.lower(), draw_sheet(keeper))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mark_file(path)
        replace_file(path, content.tobytes())
    except OSError as error:
        raise KanoclipError(f"cannot write {path}: {error.strerror}: choose another place") from error


def draw_sheet(keeper: CaseKeeper) -> Image:
    """One band for each kind of case, the cases side by side in pairs: uint8 [H, W, 3], BGR."""
    bands = []
    for kind, title in TITLES.items():
        cases = keeper.kind(kind)
        if not cases:
            continue
        strips = [_strip(case) for case in cases]
        if len(strips) % 2:
            strips.append(np.full_like(strips[0], _PAPER))
        pairs = [np.hstack(strips[i : i + 2]) for i in range(0, len(strips), 2)]
        heading = np.full((_HEADING, pairs[0].shape[1], 3), _PAPER, np.uint8)
        _write(heading, title, (_GAP, 21), 0.6)
        bands += [heading, *pairs]
    if not bands:
        return np.full((_HEADING, TILE, 3), _PAPER, np.uint8)
    return np.asarray(np.vstack(bands), dtype=np.uint8)


def _strip(case: Case) -> Image:
    """Input, mask, map and overlay of one case with a line below."""
    mask = np.full((TILE, TILE, 3), _NO_MASK, np.uint8)
    if case.mask is not None:
        grey = cv2.resize(case.mask.astype(np.uint8) * 255, (TILE, TILE), interpolation=cv2.INTER_NEAREST)
        mask = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), dtype=np.uint8)
    large = cv2.resize(np.clip(case.map, 0, 1), (TILE, TILE), interpolation=cv2.INTER_LINEAR)
    colours = coloured(large.astype(np.float64), _MIDDLE)
    overlay = case.image.copy()
    paint_heat_map(overlay, case.map, _MIDDLE)
    canvas = np.full((TILE + _LINE, 4 * (TILE + _GAP) + _GAP, 3), _PAPER, np.uint8)
    for i, tile in enumerate((case.image, mask, colours, overlay)):
        left = _GAP + i * (TILE + _GAP)
        canvas[:TILE, left : left + TILE] = tile
    name = f"{case.category}/{case.sample.defect}/{case.sample.image.name}"
    _write(canvas, f"{case.score:.3f}  {name}", (_GAP, TILE + 20), 0.5)
    if case.mask is None:
        _write(canvas, "no mask", (2 * _GAP + TILE + 75, TILE // 2), 0.5)
    return canvas


def _write(canvas: Image, text: str, at: tuple[int, int], scale: float) -> None:
    shown = "".join(sign if 32 <= ord(sign) < 127 else "?" for sign in text)
    cv2.putText(canvas, shown, at, cv2.FONT_HERSHEY_SIMPLEX, scale, _INK, 1, cv2.LINE_AA)
