"""Materials that fill an image: name -> a function that paints one, float32 [size, size, 3], BGR in [0, 1]."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from kanoclip.train.nano.scenes.noise import Field, Rng, cells, fractal, grain, smooth, streaks, unit_range, warp

Paint = npt.NDArray[np.float32]
Painter = Callable[[Rng, int], Paint]


@dataclass(frozen=True)
class Material:
    """A kind of surface.

    Attributes:
        words: For captions.
        paint: Paints one of its countless forms.
    """

    words: str
    paint: Painter


def colour(
    rng: Rng, hue: tuple[float, float], saturation: tuple[float, float], value: tuple[float, float]
) -> npt.NDArray[np.float32]:
    """A random colour, BGR in [0, 1]; the hue is in turns."""
    red, green, blue = colorsys.hsv_to_rgb(rng.uniform(*hue) % 1, rng.uniform(*saturation), rng.uniform(*value))
    return np.array([blue, green, red], np.float32)


def any_colour(rng: Rng) -> npt.NDArray[np.float32]:
    """Grey half of the time, else anything."""
    if rng.random() < 0.5:
        return colour(rng, (0, 1), (0, 0.08), (0.15, 0.95))
    return colour(rng, (0, 1), (0.15, 0.8), (0.2, 0.95))


def mix(level: Field, low: npt.NDArray[np.float32], high: npt.NDArray[np.float32]) -> Paint:
    """From one colour to another by a field in [0, 1]."""
    return low + level[..., None] * (high - low)


def _shade(base: npt.NDArray[np.float32], level: Field) -> Paint:
    """A colour made brighter and darker by a field around 0."""
    return base * (1 + level[..., None])


def _waves(size: int, period: float, angle: float, phase: float = 0.0) -> Field:
    ramp = np.arange(size, dtype=np.float32)
    x, y = ramp[None, :], ramp[:, None]
    along = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    return np.sin(along * np.float32(2 * np.pi / period) + np.float32(phase))


def _woven(rng: Rng, size: int) -> Paint:
    period, angle = rng.uniform(4, 14), rng.choice([0.0, np.pi / 4]) + rng.uniform(-0.1, 0.1)
    warp_threads, weft = _waves(size, period, angle), _waves(size, period, angle + np.pi / 2)
    over = (_waves(size, 2 * period, angle) * _waves(size, 2 * period, angle + np.pi / 2)) > 0
    height = np.where(over, warp_threads, weft) * rng.uniform(0.08, 0.3) + grain(rng, size, 0.7) * 0.03
    one = any_colour(rng)
    other = one if rng.random() < 0.7 else any_colour(rng)
    paint = np.where(over[..., None], one, other) * (1 + height[..., None])
    return warp(rng, paint.astype(np.float32), rng.uniform(0, 3), 4)


def _knitted(rng: Rng, size: int) -> Paint:
    period = rng.uniform(8, 18)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    lean = np.abs((x / period) % 1 - 0.5) * 2
    height = np.sin((y / period * 1.3 + lean) * 2 * np.pi).astype(np.float32) * 0.25 - (lean > 0.9) * 0.2
    return warp(rng, _shade(any_colour(rng), height.astype(np.float32) + grain(rng, size, 0.6) * 0.05), 2, 4)


def _carpet(rng: Rng, size: int) -> Paint:
    level = grain(rng, size, rng.uniform(0.6, 1.6)) * rng.uniform(0.1, 0.25)
    level += _waves(size, rng.uniform(5, 9), rng.uniform(0, np.pi)) * rng.uniform(0, 0.12)
    return _shade(any_colour(rng), level)


def _leather(rng: Rng, size: int) -> Paint:
    pores = cells(rng, size, int(rng.uniform(300, 2500)))
    base = colour(rng, (0.02, 0.11), (0.1, 0.75), (0.15, 0.75))
    return _shade(base, (pores - 0.4) * rng.uniform(0.3, 0.8) + (fractal(rng, size, 3) - 0.5) * 0.2)


def _wood(rng: Rng, size: int) -> Paint:
    rings = fractal(rng, size, rng.uniform(6, 20), 3, stretch=rng.uniform(8, 20))
    level = 0.5 + 0.5 * np.sin(rings * rng.uniform(10, 40)).astype(np.float32)
    level = 0.6 * level + 0.4 * unit_range(streaks(rng, size, 40, 0.4))
    dark = colour(rng, (0.04, 0.1), (0.35, 0.7), (0.2, 0.6))
    return mix(level, dark, np.clip(dark * rng.uniform(1.15, 1.7), 0, 1))


def _brushed(rng: Rng, size: int) -> Paint:
    base = colour(rng, (0, 1), (0, 0.1), (0.35, 0.85))
    level = streaks(rng, size, int(rng.uniform(20, 120)), rng.uniform(0.3, 1.2)) * rng.uniform(0.03, 0.1)
    return _shade(base, level + (smooth(rng, size, 2) - 0.5) * rng.uniform(0, 0.5))


def _rolled(rng: Rng, size: int) -> Paint:
    """Metal or coal with a strong grain along one direction, dark flecks in it."""
    flecks = streaks(rng, size, int(rng.uniform(2, 16)), rng.uniform(0.3, 1.1))
    level = flecks * rng.uniform(0.03, 0.16) - np.clip(flecks - rng.uniform(0.5, 1.5), 0, 3) * rng.uniform(0, 0.2)
    level += streaks(rng, size, int(rng.uniform(40, 200)), rng.uniform(0.5, 3)) * rng.uniform(0, 0.06)
    return _shade(colour(rng, (0, 1), (0, 0.06), (0.3, 0.85)), level)


def _painted(rng: Rng, size: int) -> Paint:
    level = grain(rng, size, rng.uniform(1, 3)) * rng.uniform(0, 0.03) + (smooth(rng, size, 2) - 0.5) * 0.2
    return _shade(any_colour(rng), level)


def _cast(rng: Rng, size: int) -> Paint:
    base = colour(rng, (0, 1), (0, 0.08), (0.15, 0.7))
    return _shade(
        base, grain(rng, size, rng.uniform(0.4, 2)) * rng.uniform(0.04, 0.16) + (fractal(rng, size, 2) - 0.5) * 0.3
    )


def _terrazzo(rng: Rng, size: int) -> Paint:
    paint = np.broadcast_to(any_colour(rng), (size, size, 3)).astype(np.float32).copy()
    for _ in range(int(rng.integers(1, 4))):
        speckles = grain(rng, size, rng.uniform(0.8, 4)) > rng.uniform(0.6, 1.5)
        paint[speckles] = any_colour(rng)
    return np.asarray(cv2.GaussianBlur(paint, (0, 0), 0.6), np.float32)


def _concrete(rng: Rng, size: int) -> Paint:
    level = (fractal(rng, size, rng.uniform(3, 10), 5, 0.7) - 0.5) * rng.uniform(0.2, 0.6)
    pits = (grain(rng, size, rng.uniform(0.7, 1.5)) > 2.6) * np.float32(-0.25)
    return _shade(colour(rng, (0, 1), (0, 0.1), (0.3, 0.8)), level + pits)


def _marble(rng: Rng, size: int) -> Paint:
    veins = np.abs(np.sin(fractal(rng, size, 3, 5, 0.6) * rng.uniform(6, 16))).astype(np.float32)
    return mix(veins ** rng.uniform(0.2, 0.6), any_colour(rng), colour(rng, (0, 1), (0, 0.1), (0.6, 0.95)))


def _mesh(rng: Rng, size: int) -> Paint:
    period, angle = rng.uniform(12, 32), rng.choice([0.0, np.pi / 4])
    bars = np.maximum(_waves(size, period, angle), _waves(size, period, angle + np.pi / 2))
    inside = np.clip((bars - rng.uniform(0.6, 0.9)) * 8, 0, 1).astype(np.float32)
    back, front = any_colour(rng), colour(rng, (0, 1), (0, 0.1), (0.1, 0.9))
    if np.abs(back - front).max() < 0.3:
        back = (front + 0.5) % 1
    return warp(rng, mix(inside, back, front) * (1 + grain(rng, size, 1)[..., None] * 0.03), rng.uniform(0, 2), 3)


def _paper(rng: Rng, size: int) -> Paint:
    level = (fractal(rng, size, 30, 3) - 0.5) * 0.06 + streaks(rng, size, 8, 0.5) * 0.01
    return _shade(colour(rng, (0.05, 0.2), (0, 0.25), (0.7, 0.97)), level)


def _cardboard(rng: Rng, size: int) -> Paint:
    level = _waves(size, rng.uniform(6, 14), rng.uniform(-0.1, 0.1)) * rng.uniform(0, 0.08)
    return _shade(colour(rng, (0.06, 0.1), (0.3, 0.5), (0.45, 0.75)), level + (fractal(rng, size, 20) - 0.5) * 0.15)


def _plastic(rng: Rng, size: int) -> Paint:
    return _shade(any_colour(rng), (smooth(rng, size, 2) - 0.5) * rng.uniform(0.1, 0.5) + grain(rng, size, 0.5) * 0.008)


def _rubber(rng: Rng, size: int) -> Paint:
    return _shade(colour(rng, (0, 1), (0, 0.15), (0.08, 0.3)), grain(rng, size, 0.8) * rng.uniform(0.05, 0.2))


def _foam(rng: Rng, size: int) -> Paint:
    return _shade(any_colour(rng), (cells(rng, size, int(rng.uniform(200, 1500))) - 0.4) * -rng.uniform(0.3, 0.7))


def _ribbed(rng: Rng, size: int) -> Paint:
    waves = _waves(size, rng.uniform(6, 30), rng.uniform(0, np.pi), rng.uniform(0, 6))
    return _shade(any_colour(rng), waves * rng.uniform(0.08, 0.35) + grain(rng, size, 0.7) * 0.03)


def _wafer(rng: Rng, size: int) -> Paint:
    """A cell of a solar panel: crystal patches or none, thin fingers, a few wide bars."""
    level = np.zeros((size, size), np.float32)
    if rng.random() < 0.5:
        patches = np.floor(warp(rng, smooth(rng, size, rng.uniform(6, 14)), 14, 12) * 6) / 6
        level += (patches - 0.5) * rng.uniform(0.2, 0.6)
    else:
        y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
        level -= ((x**2 + y**2) * rng.uniform(0.05, 0.25)).astype(np.float32)
    level += grain(rng, size, 1.2) * 0.06
    paint = _shade(colour(rng, (0, 1), (0, 0.1), (0.25, 0.7)), level)
    for bar in range(int(rng.integers(2, 5))):
        at = int((bar + 0.7) * size / 4.2)
        paint[at : at + int(rng.integers(2, 6))] *= rng.uniform(0.15, 0.5)
    return paint


def _board(rng: Rng, size: int) -> Paint:
    """A printed circuit board: lacquer, traces, pads, chips."""
    paint = _shade(colour(rng, (0.25, 0.65), (0.5, 0.9), (0.15, 0.5)), grain(rng, size, 1) * 0.03)
    metal = colour(rng, (0.08, 0.14), (0.05, 0.5), (0.6, 0.9))
    trace = (np.clip(paint[0, 0] * rng.uniform(1.2, 1.6), 0, 1)).tolist()
    for _ in range(int(rng.integers(5, 16))):
        start, at = rng.integers(0, size, 2), rng.integers(-size // 2, size // 2, 2)
        corner = (int(start[0] + at[0]), int(start[1]))
        cv2.line(paint, (int(start[0]), int(start[1])), corner, trace, 2, cv2.LINE_AA)
        cv2.line(paint, corner, (corner[0], int(start[1] + at[1])), trace, 2, cv2.LINE_AA)
        cv2.circle(paint, (int(start[0]), int(start[1])), int(rng.integers(3, 7)), metal.tolist(), -1, cv2.LINE_AA)
    for _ in range(int(rng.integers(1, 6))):
        x, y = (int(v) for v in rng.integers(0, size - 40, 2))
        w, h = (int(v) for v in rng.integers(20, 70, 2))
        for pin in range(x + 3, x + w - 3, 7):
            cv2.rectangle(paint, (pin, y - 5), (pin + 3, y + h + 5), metal.tolist(), -1)
        cv2.rectangle(paint, (x, y), (x + w, y + h), [float(v) for v in rng.uniform(0.03, 0.15, 1).repeat(3)], -1)
    return paint


MATERIALS: dict[str, Material] = {
    "woven cloth": Material("woven cloth", _woven),
    "knitted cloth": Material("knitted fabric", _knitted),
    "carpet": Material("carpet", _carpet),
    "leather": Material("leather", _leather),
    "wood": Material("wood", _wood),
    "brushed metal": Material("brushed metal", _brushed),
    "rolled metal": Material("rolled metal", _rolled),
    "painted metal": Material("painted metal sheet", _painted),
    "cast metal": Material("cast metal surface", _cast),
    "terrazzo": Material("terrazzo tile", _terrazzo),
    "concrete": Material("concrete", _concrete),
    "marble": Material("marble slab", _marble),
    "mesh": Material("metal mesh", _mesh),
    "paper": Material("sheet of paper", _paper),
    "cardboard": Material("cardboard", _cardboard),
    "plastic": Material("plastic surface", _plastic),
    "rubber": Material("rubber mat", _rubber),
    "foam": Material("foam", _foam),
    "ribbed sheet": Material("ribbed sheet", _ribbed),
    "solar cell": Material("solar cell", _wafer),
    "circuit board": Material("printed circuit board", _board),
}
"""By name."""
