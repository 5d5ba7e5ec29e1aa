"""An image of how good and bad frames lie about the thresholds, drawn with OpenCV."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.system.files.own import mark_file
from kanoclip.runtime.system.paths import replace_file
from kanoclip.runtime.types import Image

WIDTH, HEIGHT = 960, 360
"""Of one histogram, in pixels."""
BINS = 60
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 56, 44
_PAPER, _INK, _LINE = (255, 255, 255), (40, 40, 40), (205, 205, 205)
_GOOD, _BAD, _MARK = (160, 120, 40), (50, 60, 220), (20, 20, 20)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class Histogram:
    """One panel.

    Attributes:
        title: Above it.
        good: Values of good frames, at least one.
        bad: Values of bad frames; may be empty.
        threshold: Drawn as a line.
    """

    title: str
    good: npt.NDArray[np.float64]
    bad: npt.NDArray[np.float64]
    threshold: float


def draw_histograms(panels: list[Histogram]) -> Image:
    """Draws panels below each other.

    Bars are shares of the good and of the bad frames, so that few bad frames are seen beside many good ones.

    Returns:
        uint8 [panels * HEIGHT, WIDTH, 3], BGR.
    """
    return np.concatenate([_panel(panel) for panel in panels])


def write_png(path: Path, image: Image) -> None:
    """Writes an image, whole or not at all.

    Raises:
        SinkError: It cannot be written.
    """
    good, data = cv2.imencode(".png", image)
    assert good
    try:
        mark_file(path)  # first: the plot may lie among images that are read
        replace_file(path, data.tobytes())
    except OSError as error:
        raise SinkError(f"{path}: cannot be written ({error.strerror})") from error


def _panel(panel: Histogram) -> Image:
    canvas = np.full((HEIGHT, WIDTH, 3), _PAPER, np.uint8)
    every = np.concatenate([panel.good, panel.bad, [panel.threshold]])
    low, high = float(every.min()), float(every.max())
    margin = max((high - low) * 0.03, 1e-4)
    edges = np.linspace(low - margin, high + margin, BINS + 1)
    groups = [(panel.good, _GOOD, "good")] + ([(panel.bad, _BAD, "bad")] if len(panel.bad) else [])
    shares = [np.histogram(values, edges)[0] / len(values) for values, _, _ in groups]
    top = max(float(share.max()) for share in shares)
    floor, span, tall = HEIGHT - _BOTTOM, WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def across(value: float) -> int:
        return _LEFT + round(float((value - edges[0]) / (edges[-1] - edges[0])) * span)

    for part in (0.5, 1.0):
        y = floor - round(part * tall)
        cv2.line(canvas, (_LEFT, y), (WIDTH - _RIGHT, y), _LINE, 1)
        _write(canvas, f"{part * top * 100:.3g}%", (6, y + 4))
    for (_, colour, _), share in zip(groups, shares, strict=True):
        layer = canvas.copy()
        for number in np.flatnonzero(share):
            height = max(round(float(share[number]) / top * tall), 1)
            left, right = across(float(edges[number])), across(float(edges[number + 1]))
            cv2.rectangle(layer, (left, floor - height), (max(right - 1, left), floor), colour, cv2.FILLED)
        canvas = np.asarray(cv2.addWeighted(layer, 0.65, canvas, 0.35, 0), np.uint8)
    cv2.line(canvas, (_LEFT, floor), (WIDTH - _RIGHT, floor), _INK, 1)
    for value in np.linspace(edges[0], edges[-1], 7):
        x = across(float(value))
        cv2.line(canvas, (x, floor), (x, floor + 4), _INK, 1)
        _write(canvas, f"{value:.3f}", (x - 20, floor + 20))
    mark = across(panel.threshold)
    cv2.line(canvas, (mark, _TOP - 6), (mark, floor), _MARK, 2)
    text = f"threshold {panel.threshold:.4f}"
    wide = cv2.getTextSize(text, _FONT, 0.45, 1)[0][0]
    _write(canvas, text, (min(max(mark - wide // 2, _LEFT), WIDTH - _RIGHT - wide), _TOP - 12))
    _write(canvas, panel.title, (_LEFT, 22), 0.55)
    x = WIDTH - _RIGHT
    for values, colour, name in reversed(groups):
        label = f"{name} ({len(values)})"
        x -= cv2.getTextSize(label, _FONT, 0.45, 1)[0][0]
        _write(canvas, label, (x, 22))
        cv2.rectangle(canvas, (x - 16, 12), (x - 6, 22), colour, cv2.FILLED)
        x -= 32
    return canvas


def _write(canvas: Image, text: str, at: tuple[int, int], scale: float = 0.45) -> None:
    cv2.putText(canvas, text, at, _FONT, scale, _INK, 1, cv2.LINE_AA)
