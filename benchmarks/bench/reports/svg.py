"""Plots as SVG text: bars, histograms and lines on linear or logarithmic axes, drawn by the page's own style sheet."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from kanoclip.runtime.ops.report.plots import Scale, line, linear, text

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 16, 44
COLOURS = 8
"""Classes c0 to c7 of the style sheet."""


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    """The same by decades; both ends above 0."""
    inner = linear(math.log10(low), math.log10(high), start, end)
    return lambda value: inner(math.log10(value))


def decades(low: float, high: float) -> list[float]:
    """Powers of ten in [low, high]."""
    return [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]


def rectangle(x: float, y: float, width: float, height: float, colour: int, title: str) -> str:
    """A bar; `title` is shown under the pointer."""
    place = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{max(height, 0):.1f}"'
    return f'<rect {place} class="c{colour % COLOURS}"><title>{html.escape(title)}</title></rect>'


def circle(x: float, y: float, colour: int, title: str) -> str:
    """A point; `title` is shown under the pointer."""
    place = f'cx="{x:.1f}" cy="{y:.1f}" r="6"'
    return f'<circle {place} class="c{colour % COLOURS}"><title>{html.escape(title)}</title></circle>'


def path(points: Sequence[tuple[float, float]], colour: int) -> str:
    """A line through points."""
    through = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{through}" class="line s{colour % COLOURS}"/>'


def axes(x: Scale, y: Scale, across: Sequence[float], up: Sequence[float], below: str, beside: str) -> list[str]:
    """Grid, values and titles of both axes."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value in across:
        parts += [line(x(value), TOP, x(value), bottom), text(x(value), bottom + 16, short(value))]
    for value in up:
        parts += [line(LEFT, y(value), right, y(value)), text(LEFT - 6, y(value) + 4, short(value), "end")]
    middle = (TOP + bottom) / 2
    parts.append(text((LEFT + right) / 2, HEIGHT - 6, below))
    parts.append(
        f'<text transform="translate(14 {middle:.0f}) rotate(-90)" text-anchor="middle">{html.escape(beside)}</text>'
    )
    return parts


def chart(parts: Sequence[str], title: str, height: float = HEIGHT) -> str:
    """The whole plot.

    Args:
        parts: What it is made of.
        title: What it shows, for readers who do not see it.
        height: Of the plot.
    """
    head = f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{html.escape(title)}">'
    return head + "".join(parts) + "</svg>"


def short(value: float) -> str:
    """A number for an axis."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
