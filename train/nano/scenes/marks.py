"""Where a defect acts: random places, blots and lines inside a region; and how it is laid over an image."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from kanoclip.train.nano.scenes.materials import Paint
from kanoclip.train.nano.scenes.noise import Field, Rng, fractal


def inside(rng: Rng, region: Field) -> tuple[int, int]:
    """A random pixel (x, y) of a region; the middle of an empty one."""
    rows, columns = np.nonzero(region > 0.5)
    if rows.size == 0:
        return region.shape[1] // 2, region.shape[0] // 2
    pick = int(rng.integers(rows.size))
    return int(columns[pick]), int(rows[pick])


def blob(rng: Rng, region: Field, radius: float, ragged: float = 0.5) -> Field:
    """A blot of about `radius` pixels with a ragged outline, in the region: [size, size] in [0, 1], soft by a pixel."""
    size = region.shape[0]
    x0, y0 = inside(rng, region)
    ramp = np.arange(size, dtype=np.float32)
    x, y = ramp[None, :], ramp[:, None]
    turn, squeeze = rng.uniform(0, np.pi), rng.uniform(0.45, 1)
    cos, sin = math.cos(turn), math.sin(turn)
    dx, dy = (x - x0) * cos + (y - y0) * sin, ((y - y0) * cos - (x - x0) * sin) / squeeze
    distance = np.sqrt(dx * dx + dy * dy) / np.float32(radius)
    edge = 1 + np.float32(ragged) * (fractal(rng, size, size / max(radius, 4) * 1.5, 3) - 0.5) * 2
    return np.clip((edge - distance) * np.float32(radius) * 0.7 + 0.5, 0, 1).astype(np.float32) * region


def path(rng: Rng, start: tuple[float, float], length: float, wander: float) -> npt.NDArray[np.int32]:
    """A wandering line of about `length` pixels: points in 1/16 pixels, [N, 1, 2]."""
    steps = max(4, int(length / 4))
    turns = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, wander, steps))
    points = np.cumsum(np.stack([np.cos(turns), np.sin(turns)], axis=1) * length / steps, axis=0) + start
    return np.round((points - (points.mean(0) - start)) * 16).astype(np.int32)[:, None]


def line(rng: Rng, region: Field, length: float, wander: float, width: int) -> Field:
    """A line drawn in the region, [size, size] in [0, 1]."""
    canvas = np.zeros(region.shape, np.uint8)
    cv2.polylines(canvas, [path(rng, inside(rng, region), length, wander)], False, 255, width, cv2.LINE_AA, 4)
    return np.asarray(canvas / 255 * region, np.float32)


def blend(image: Paint, strength: Field, other: npt.NDArray[np.float32] | Paint) -> Paint:
    """The other colour or image where strength is 1."""
    return np.asarray(image + strength[..., None] * (other - image), np.float32)


def contrary(rng: Rng, image: Paint, strength: Field) -> npt.NDArray[np.float32]:
    """Black-to-white tone that stands out from what it covers."""
    weight = float(strength.sum())
    mean = float((image.mean(axis=2) * strength).sum() / weight) if weight > 0 else 0.5
    away = rng.uniform(0.18, 0.6)
    dark = mean - away if (rng.random() < 0.6 and mean - away > 0) or mean + away > 1 else mean + away
    tint = np.clip(dark + rng.normal(0, 0.03, 3), 0, 1)
    return tint.astype(np.float32)


def where_different(before: Paint, after: Paint, strength: Field) -> tuple[Paint, Field]:
    """The mask only where something can be seen to have changed."""
    seen = np.clip(np.abs(after - before).max(axis=2) * 10, 0, 1)
    seen = np.asarray(cv2.GaussianBlur(cv2.dilate(seen, np.ones((5, 5), np.uint8)), (0, 0), 1.5), np.float32)
    return after, np.minimum(seen, np.clip(strength * 1.5, 0, 1))
