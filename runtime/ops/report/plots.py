"""Plots as SVG text, coloured by the page's style sheet."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

WIDTH, LEFT, RIGHT = 1040, 52, 14
BINS = 60
Values = npt.NDArray[np.float64]


def histogram(
    scores: Values, anomalous: npt.NDArray[np.bool_], thresholds: Sequence[float], before: Values | None
) -> str:
    """Scores, those that are anomalous in another colour, thresholds, and a reference's outline.

    Heights are square roots, so that a few bad images among a million are seen.

    Args:
        scores: Without NaN, at least one.
        anomalous: Which of them are.
        thresholds: Each that was used.
        before: The reference's scores, drawn as if there were as many.
    """
    before = None if before is None or not before.size else before
    all_values = [scores, np.asarray(thresholds), *([] if before is None else [before])]
    low, high = _room(float(min(v.min() for v in all_values)), float(max(v.max() for v in all_values)))
    edges = np.linspace(low, high, BINS + 1)
    normal = np.histogram(scores[~anomalous], edges)[0]
    bad = np.histogram(scores[anomalous], edges)[0]
    old = None if before is None else np.histogram(before, edges)[0] * (scores.size / before.size)
    most = max(float((normal + bad).max()), 0.0 if old is None else float(old.max()), 1.0)
    top, bottom, height = 24, 262, 304
    x, y = linear(low, high, LEFT, WIDTH - RIGHT), _root(most, bottom, top)
    parts = []
    for value in _counts(most):
        parts += [line(LEFT, y(value), WIDTH - RIGHT, y(value)), text(LEFT - 6, y(value) + 4, _short(value), "end")]
    for value in ticks(low, high, 8):
        parts.append(text(x(value), bottom + 16, _short(value)))
    for start, end, good, wrong in zip(edges, edges[1:], normal, bad, strict=False):
        title = f"{start:.3f} to {end:.3f}: {good + wrong:,} images, {wrong:,} anomalous"
        bars = [("normal", 0, good), ("anomalous", good, good + wrong)]
        for kind, below, above in bars:
            if above > below:
                parts.append(_bar(x(start) + 0.5, y(above), x(end) - x(start) - 1, y(below) - y(above), kind, title))
    if old is not None:
        points = [
            point
            for start, end, count in zip(edges, edges[1:], old, strict=False)
            for point in ((x(start), y(count)), (x(end), y(count)))
        ]
        parts.append(_polyline(points, "before"))
    for threshold in thresholds:
        parts += [
            line(x(threshold), top - 8, x(threshold), bottom, "threshold"),
            text(x(threshold) + 5, top, f"threshold {threshold:.3f}", "start", "strong"),
        ]
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, height - 4, "score (heights: square root of the count)"))
    return _svg(parts, height, "Histogram of the scores")


def timeline(values: Values, name: str, before: Values | None, limit: float | None = None) -> str:
    """A figure along the work list: median and the middle nine tenths of each piece of it.

    Args:
        values: One for each image, NaN where there is none.
        name: The figure's.
        before: The reference's values, whose middle nine tenths and median are drawn over the whole width.
        limit: A threshold.
    """
    pieces = [piece[~np.isnan(piece)] for piece in np.array_split(values, min(max(len(values) // 12, 1), 90))]
    marks = [np.percentile(piece, [5, 50, 95]) if piece.size else np.full(3, np.nan) for piece in pieces]
    bands = np.array(marks)
    old = None if before is None or not before.size else np.percentile(before, [5, 50, 95])
    drawn = [bands[~np.isnan(bands)], *([] if old is None else [old])]
    low, high = _room(float(min(v.min() for v in drawn)), float(max(v.max() for v in drawn)))
    top, bottom, height = 8, 96, 118
    x, y = linear(0, len(pieces), LEFT, WIDTH - RIGHT), linear(low, high, bottom, top)
    parts = []
    for value in ticks(low, high, 3):
        parts += [line(LEFT, y(value), WIDTH - RIGHT, y(value)), text(LEFT - 6, y(value) + 4, _short(value), "end")]
    if old is not None:
        parts.append(_bar(LEFT, y(old[2]), WIDTH - RIGHT - LEFT, y(old[0]) - y(old[2]), "before-band", "reference"))
        parts.append(line(LEFT, y(old[1]), WIDTH - RIGHT, y(old[1]), "before"))
    if limit is not None and low <= limit <= high:
        parts.append(line(LEFT, y(limit), WIDTH - RIGHT, y(limit), "threshold"))
    for number, (piece, (p5, p50, p95)) in enumerate(zip(pieces, bands, strict=True)):
        if piece.size:
            title = f"{name}: median {p50:.4g}, middle nine tenths {p5:.4g} to {p95:.4g}, {piece.size:,} images"
            parts.append(_bar(x(number), y(p95), x(number + 1) - x(number), y(p5) - y(p95), "band", title))
    steps = [(x(n + 0.5), y(p50)) for n, (_, p50, _) in enumerate(bands) if not math.isnan(p50)]
    parts.append(_polyline(steps, "median"))
    for share, anchor in ((0.0, "start"), (0.25, "middle"), (0.5, "middle"), (0.75, "middle"), (1.0, "end")):
        parts.append(text(LEFT + share * (WIDTH - RIGHT - LEFT), height - 4, f"{round(share * len(values)):,}", anchor))
    return _svg(parts, height, f"{name} along the run")


def steps(values: Sequence[float | None], name: str, limit: float) -> str:
    """A figure of pieces of the run as bars; those above the limit stand out.

    Args:
        values: One for each piece, at least 0; None where it is not known.
        name: The figure's.
        limit: From where it matters.
    """
    known = [value for value in values if value is not None]
    high = max([*known, 2 * limit]) * 1.05
    top, bottom, height = 8, 96, 118
    x, y = linear(0, len(values), LEFT, WIDTH - RIGHT), linear(0, high, bottom, top)
    parts = []
    for value in ticks(0, high, 3):
        parts += [line(LEFT, y(value), WIDTH - RIGHT, y(value)), text(LEFT - 6, y(value) + 4, _short(value), "end")]
    parts.append(line(LEFT, y(limit), WIDTH - RIGHT, y(limit), "threshold"))
    for number, found in enumerate(values):
        if found is not None:
            kind = "anomalous" if found >= limit else "normal"
            title = f"{name}: {found:.2f}, piece {number + 1} of {len(values)}"
            parts.append(_bar(x(number) + 0.5, y(found), x(number + 1) - x(number) - 1, bottom - y(found), kind, title))
    return _svg(parts, height, f"{name} along the run")


def _room(low: float, high: float) -> tuple[float, float]:
    """A range with some room at both ends, never empty."""
    margin = max((high - low) * 0.04, abs(high) * 1e-3, 1e-6)
    return low - margin, high + margin


def _counts(most: float) -> list[float]:
    """Counts to be written beside an axis of square roots."""
    wanted = [float(f"{most * share:.1g}") for share in (0.04, 0.2, 0.5, 0.9)]
    return [0.0, *sorted({round(value) for value in wanted if 1 <= value <= most})]


def _root(most: float, bottom: float, top: float) -> Scale:
    return lambda value: bottom + math.sqrt(value / most) * (top - bottom)


def _short(value: float) -> str:
    """A number on an axis."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.3g}{letter}"
    return f"{value:.4g}" if abs(value) > 1e-9 else "0"


def _bar(x: float, y: float, width: float, height: float, kind: str, title: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.4):.1f}" height="{max(height, 0.8):.1f}"'
    return f'<rect {place} class="{kind}"><title>{html.escape(title)}</title></rect>'


def _polyline(points: Sequence[tuple[float, float]], kind: str) -> str:
    through = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{through}" class="{kind}"/>'


def _svg(parts: Sequence[str], height: float, title: str) -> str:
    opened = f'<div class="plot"><svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{html.escape(title)}">'
    return opened + "".join(parts) + "</svg></div>"


Scale = Callable[[float], float]


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """Maps [low, high] to [start, end]."""
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def ticks(low: float, high: float, wanted: int = 6) -> list[float]:
    """Round values in [low, high]."""
    span = high - low
    if span <= 0:
        return [low]
    step = 10.0 ** math.floor(math.log10(span / wanted))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= wanted)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def text(x: float, y: float, content: str, anchor: str = "middle", kind: str = "label") -> str:
    """A line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{html.escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str = "grid") -> str:
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'
