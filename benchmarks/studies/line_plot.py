"""Curves over time, panels below each other, drawn with OpenCV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT = 960, 200
"""Of one panel, in pixels."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 24, 34, 28
_PAPER, _INK, _GRID, _SHADE = (255, 255, 255), (40, 40, 40), (220, 220, 220), (242, 242, 242)
_COLOURS = ((160, 120, 40), (50, 60, 220), (60, 150, 60))
_FONT = cv2.FONT_HERSHEY_SIMPLEX

_Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Panel:
    """Curves over the same time.

    Attributes:
        title: Above them.
        curves: (name, values) of each; at most three.
        least: The axis holds at least this much, so that noise does not fill the panel.
    """

    title: str
    curves: tuple[tuple[str, Sequence[float]], ...]
    least: float


def draw_panels(seconds: Sequence[float], panels: Sequence[Panel], settled: float = 0.0) -> _Image:
    """Draws them.

    Args:
        seconds: When each value was taken, in order.
        panels: From the top.
        settled: Up to then all is shaded: a warm-up that no figure is of.

    Returns:
        uint8 [panels * HEIGHT, WIDTH, 3], BGR.
    """
    return np.concatenate([_panel(np.asarray(seconds, float), panel, settled) for panel in panels])


def _panel(seconds: npt.NDArray[np.float64], panel: Panel, settled: float) -> _Image:
    canvas = np.full((HEIGHT, WIDTH, 3), _PAPER, np.uint8)
    every = np.concatenate([np.asarray(values, float) for _, values in panel.curves])
    low, high = float(every.min()), float(every.max())
    room = max(panel.least - (high - low), 0.1 * (high - low), 1e-9) / 2
    low, high = max(low - room, 0.0) if low >= 0 else low - room, high + room
    floor, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    end = max(float(seconds[-1]), 1.0)

    def across(second: float) -> int:
        return _LEFT + round(second / end * (right - _LEFT))

    def down(value: float) -> int:
        return floor - round((value - low) / (high - low) * (floor - _TOP))

    cv2.rectangle(canvas, (_LEFT, _TOP), (across(min(settled, end)), floor), _SHADE, cv2.FILLED)
    for value in np.linspace(low, high, 4):
        cv2.line(canvas, (_LEFT, down(value)), (right, down(value)), _GRID, 1)
        _write(canvas, f"{value:.4g}", (8, down(value) + 4))
    for minutes in np.linspace(0, end / 60, 7):
        _write(canvas, f"{minutes:.3g} min", (across(minutes * 60) - 18, floor + 18))
    _write(canvas, panel.title, (_LEFT, 20), 0.5)
    x = right
    for (name, values), colour in zip(panel.curves, _COLOURS, strict=False):
        points = [(across(float(s)), down(float(v))) for s, v in zip(seconds, values, strict=True)]
        cv2.polylines(canvas, [np.array(points, np.int32)], False, colour, 1, cv2.LINE_AA)
        if name:
            x -= cv2.getTextSize(name, _FONT, 0.4, 1)[0][0] + 12
            _write(canvas, name, (x, 20), colour=colour)
    return canvas


def _write(
    canvas: _Image, text: str, at: tuple[int, int], scale: float = 0.4, colour: tuple[int, int, int] = _INK
) -> None:
    cv2.putText(canvas, text, at, _FONT, scale, colour, 1, cv2.LINE_AA)
