"""Recall against false-positive rate, one line for each folder of defects, drawn with OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from kanoclip.runtime.ops.calibration.recall import ALL, RATES, curve
from kanoclip.runtime.types import Image

Values = npt.NDArray[np.float64]
WIDTH, HEIGHT = 960, 480
"""Of the plot, in pixels."""
MOST_RATE = 0.2
"""Right end of the axis: beyond it no line can be run."""
MOST_FOLDERS = 8
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 260, 40, 44
_PAPER, _INK, _LINE = (255, 255, 255), (40, 40, 40), (205, 205, 205)
_COLOURS = (
    (180, 119, 31),
    (14, 127, 255),
    (44, 160, 44),
    (40, 39, 214),
    (189, 103, 148),
    (75, 86, 140),
    (194, 119, 227),
    (34, 189, 188),
)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_curves(good: Values, bad: dict[str, Values]) -> Image:
    """Draws the curves of up to MOST_FOLDERS folders, and of all of them in black.

    Args:
        good: Scores of good frames out of sample, at least one.
        bad: Scores of bad frames by folder, at least one each.

    Returns:
        uint8 [HEIGHT, WIDTH, 3], BGR.
    """
    canvas = np.full((HEIGHT, WIDTH, 3), _PAPER, np.uint8)
    floor, span, tall = HEIGHT - _BOTTOM, WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = floor - round(part * tall)
        cv2.line(canvas, (_LEFT, y), (_LEFT + span, y), _LINE, 1)
        _write(canvas, f"{part:.0%}", (10, y + 4))
    for rate in (0.0, *RATES, MOST_RATE):
        x = _LEFT + round(rate / MOST_RATE * span)
        cv2.line(canvas, (x, _TOP), (x, floor + 4), _LINE, 1)
        _write(canvas, f"{rate:.0%}", (x - 10, floor + 20))
    _write(canvas, "bad frames found, by the share of good frames that are called anomalous", (_LEFT, 22), 0.5)
    shown = list(bad.items())[:MOST_FOLDERS]
    lines = [(name, values, colour) for (name, values), colour in zip(shown, _COLOURS, strict=False)]
    lines.append((ALL, np.concatenate(list(bad.values())), _INK))
    for place, (name, values, colour) in enumerate(lines):
        false, true = curve(good, values)
        left = false <= MOST_RATE
        # Steps: between two thresholds nothing is gained.
        along = np.repeat(np.append(false[left], MOST_RATE), 2)[1:-1]
        found = np.repeat(true[left], 2)
        points = np.stack([_LEFT + along / MOST_RATE * span, floor - found * tall], 1).round().astype(np.int32)
        cv2.polylines(canvas, [points], False, colour, 3 if name == ALL else 2, cv2.LINE_AA)
        line = _TOP + 14 + 22 * place
        cv2.line(canvas, (_LEFT + span + 16, line - 4), (_LEFT + span + 40, line - 4), colour, 3)
        shown_name = name if len(name) <= 20 else f"{name[:18]}.."
        _write(canvas, f"{shown_name.encode('ascii', 'replace').decode()} ({len(values)})", (_LEFT + span + 48, line))
    return canvas


def _write(canvas: Image, text: str, at: tuple[int, int], scale: float = 0.45) -> None:
    cv2.putText(canvas, text, at, _FONT, scale, _INK, 1, cv2.LINE_AA)
