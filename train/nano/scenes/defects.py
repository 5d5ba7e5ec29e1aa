"""Defects: each changes an image inside a region it may touch, and says which pixels it changed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from kanoclip.train.nano.scenes.materials import MATERIALS, Paint, colour
from kanoclip.train.nano.scenes.noise import Field, Rng, fractal, grain


@dataclass(frozen=True)
class Defect:
    """A kind of defect.

    Attributes:
        words: For captions: `with WORDS`.
        apply: Gives (image, strength): float32 [size, size, 3], and how far each pixel was changed, [size, size] in
            [0, 1]. The region in which it may act is [size, size] in [0, 1].
    """

    words: str
    apply: Callable[[Rng, Paint, Field], tuple[Paint, Field]]


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


def _contrary(rng: Rng, image: Paint, strength: Field) -> npt.NDArray[np.float32]:
    """Black-to-white tone that stands out from what it covers."""
    weight = float(strength.sum())
    mean = float((image.mean(axis=2) * strength).sum() / weight) if weight > 0 else 0.5
    away = rng.uniform(0.18, 0.6)
    dark = mean - away if (rng.random() < 0.6 and mean - away > 0) or mean + away > 1 else mean + away
    tint = np.clip(dark + rng.normal(0, 0.03, 3), 0, 1)
    return tint.astype(np.float32)


def _scratch(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
    size = image.shape[0]
    strength = np.zeros((size, size), np.float32)
    for _ in range(int(rng.choice([1, 1, 2, 4]))):
        width = int(rng.choice([1, 1, 2, 3]))
        strength = np.maximum(strength, line(rng, region, size * rng.uniform(0.1, 0.6), rng.uniform(0, 0.12), width))
    return blend(image, strength * rng.uniform(0.5, 1), _contrary(rng, image, strength)), strength


def _crack(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
    size = image.shape[0]
    length = size * rng.uniform(0.2, 0.8)
    canvas = np.zeros((size, size), np.uint8)
    trunk = path(rng, inside(rng, region), length, rng.uniform(0.15, 0.5))
    width = int(rng.choice([1, 1, 2, 3]))
    cv2.polylines(canvas, [trunk], False, 255, width, cv2.LINE_AA, 4)
    for _ in range(int(rng.integers(0, 4))):
        at = trunk[int(rng.integers(len(trunk))), 0] / 16
        cv2.polylines(canvas, [path(rng, tuple(at), length * 0.3, 0.4)], False, 255, 1, cv2.LINE_AA, 4)
    strength = np.asarray(canvas / 255 * region, np.float32)
    dark = image * np.float32(rng.uniform(0.1, 0.55))
    return blend(image, strength, dark if rng.random() < 0.8 else _contrary(rng, image, strength)), strength


def _hairline(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
    """A crack as fine as a hair, nearly straight, that starts strong and fades; more often than not along an axis."""
    size = image.shape[0]
    turn = int(rng.integers(4)) * np.pi / 2 + rng.normal(0, 0.12) if rng.random() < 0.7 else rng.uniform(0, 2 * np.pi)
    count = max(6, int(size * rng.uniform(0.2, 0.8) / 3))
    turns = turn + np.cumsum(rng.normal(0, 0.04, count)) + rng.normal(0, rng.uniform(0.05, 0.35), count)
    points = np.cumsum(np.stack([np.cos(turns), np.sin(turns)], axis=1) * 3, axis=0) + inside(rng, region)
    if rng.random() < 0.5:  # from the border of the image inwards
        points -= np.clip(points[0], 0, size) * np.abs([math.cos(turn), math.sin(turn)]).round()
        points += np.where(points.mean(0) < 0, size, 0) * np.abs([math.cos(turn), math.sin(turn)]).round()
    strength, faint = np.zeros((size, size), np.float32), np.zeros((size, size), np.float32)
    width, fade = rng.uniform(0.8, 2.6), rng.uniform(0.2, 1.0)
    for start in range(0, count - 1, 4):
        share = 1 - start / count
        canvas = np.zeros((size, size), np.uint8)
        part = np.round(points[start : start + 5] * 16).astype(np.int32)[:, None]
        cv2.polylines(canvas, [part], False, 255, max(1, round(width * share)), cv2.LINE_AA, 4)
        strength = np.maximum(strength, canvas / np.float32(255))
        faint = np.maximum(faint, canvas / np.float32(255) * np.float32(fade + (1 - fade) * share))
    depth = rng.uniform(0.35, 0.9)
    return blend(image, faint * region * depth, image * np.float32(0.15)), strength * region


def _growth(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
    """A lump of other tone with a texture of its own, and sometimes a bright rim, in what is else alike."""
    size = image.shape[0]
    radius = size * rng.uniform(0.04, 0.14)
    strength = blob(rng, region, radius, rng.uniform(0.2, 0.6))
    soft = np.asarray(cv2.GaussianBlur(strength, (0, 0), rng.uniform(0.6, 4)), np.float32) * region
    tone = (
        _contrary(rng, image, strength)
        * (0.6 + 0.8 * fractal(rng, size, size / radius * rng.uniform(0.5, 3), 3))[..., None]
    )
    result = blend(image, soft * rng.uniform(0.6, 1), np.asarray(tone, np.float32))
    if rng.random() < 0.4:
        inner = np.asarray(
            cv2.erode(strength, np.ones((3, 3), np.uint8), iterations=max(1, int(radius / 8))), np.float32
        )
        result = blend(result, (strength - inner) * rng.uniform(0.4, 1), np.full(3, rng.uniform(0.6, 1), np.float32))
    return _where_different(image, result, np.maximum(soft, strength))


def _hole(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
    strength = blob(rng, region, image.shape[0] * rng.uniform(0.015, 0.09), rng.uniform(0.1, 0.6))
    dark = image * np.float32(rng.uniform(0.05, 0.45))
    rim = np.clip(np.asarray(cv2.GaussianBlur(strength, (0, 0), 2.5), np.float32) - strength, 0, 1)
    lit = image * (1 + rng.uniform(-0.6, 0.9) * rim[..., None])
    return blend(lit, strength, dark), strength


def _pores(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
    strength = np.zeros(region.shape, np.float32)
    spot = blob(rng, region, image.shape[0] * rng.uniform(0.05, 0.15))
    for _ in range(int(rng.integers(3, 14))):
        strength = np.maximum(strength, blob(rng, spot if spot.any() else region, rng.uniform(1.2, 4), 0.2))
    return blend(image, strength, image * np.float32(rng.uniform(0.05, 0.5))), strength


def _dent(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
    radius = image.shape[0] * rng.uniform(0.04, 0.13)
    height = np.asarray(cv2.GaussianBlur(blob(rng, region, radius, 0.2), (0, 0), radius * 0.45), np.float32)
    turn = rng.uniform(0, 2 * np.pi)
    slope = cv2.Sobel(height, cv2.CV_32F, 1, 0) * math.cos(turn) + cv2.Sobel(height, cv2.CV_32F, 0, 1) * math.sin(turn)
    slope = np.asarray(slope, np.float32) / np.float32(max(float(np.abs(slope).max()), 1e-6))
    strength = np.clip(np.abs(slope) * 2, 0, 1) * region
    return image * (1 + rng.uniform(0.25, 0.7) * (slope * region)[..., None]), strength


def _stain(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
    size = image.shape[0]
    strength = blob(rng, region, size * rng.uniform(0.04, 0.2), rng.uniform(0.3, 0.9))
    if rng.random() < 0.5:
        strength = np.asarray(cv2.GaussianBlur(strength, (0, 0), rng.uniform(1, 5)), np.float32) * region
    tint = colour(rng, (0, 1), (0, 0.9), (0.1, 0.8))
    other = image * tint * rng.uniform(0.8, 1.6) if rng.random() < 0.6 else image * np.float32(rng.uniform(0.4, 0.8))
    return blend(image, strength * rng.uniform(0.6, 1), other), strength


def _paint(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
    strength = np.zeros(region.shape, np.float32)
    result = image
    for _ in range(int(rng.integers(1, 4))):
        drop = blob(rng, region, image.shape[0] * rng.uniform(0.02, 0.1), rng.uniform(0.3, 0.9))
        result = blend(result, drop * rng.uniform(0.7, 1), colour(rng, (0, 1), (0.4, 1), (0.2, 0.95)))
        strength = np.maximum(strength, drop)
    return result, strength


def _foreign(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
    size = image.shape[0]
    if rng.random() < 0.45:  # a hair, a fibre, a chip of wire
        strength = line(rng, region, size * rng.uniform(0.08, 0.4), rng.uniform(0.1, 0.6), int(rng.choice([1, 2, 3])))
    else:
        strength = blob(rng, region, size * rng.uniform(0.015, 0.08), rng.uniform(0.2, 0.8))
    name = str(rng.choice(["cast metal", "rubber", "plastic", "wood", "paper"]))
    other = MATERIALS[name].paint(rng, size)
    shadow = np.roll(strength, (2, 2), (0, 1)) * (1 - strength)
    lit = image * (1 - 0.35 * np.asarray(cv2.GaussianBlur(shadow, (0, 0), 1.2), np.float32)[..., None])
    if np.abs(other.mean((0, 1)) - image.mean((0, 1))).max() < 0.15:
        other = np.clip(other + rng.choice([-0.35, 0.35]), 0, 1)
    return blend(lit, strength, np.asarray(other, np.float32)), strength


def _cut(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
    size = image.shape[0]
    strength = line(rng, region, size * rng.uniform(0.15, 0.5), 0.02, int(rng.choice([2, 3, 4])))
    result = blend(image, strength, image * np.float32(rng.uniform(0.1, 0.4)))
    lip = np.clip(np.roll(strength, (-2, -1), (0, 1)) - strength, 0, 1)
    return result * (1 + 0.5 * lip[..., None]), np.maximum(strength, lip * region)


def _patch(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
    """A part of the image from elsewhere, turned: broken order in a pattern, a swapped or extra part."""
    size = image.shape[0]
    strength = blob(rng, region, size * rng.uniform(0.05, 0.16), 0.3)
    other = np.rot90(image, int(rng.integers(1, 4)))
    other = np.roll(other, tuple(int(v) for v in rng.integers(size // 5, size * 4 // 5, 2)), (0, 1))
    return _where_different(image, blend(image, strength, other), strength)


def _bent(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
    """The pattern or the part pushed aside."""
    size = image.shape[0]
    radius = size * rng.uniform(0.08, 0.2)
    strength = np.asarray(cv2.GaussianBlur(blob(rng, region, radius, 0.2), (0, 0), radius / 4), np.float32) * region
    y, x = np.mgrid[:size, :size].astype(np.float32)
    turn, push = rng.uniform(0, 2 * np.pi), rng.uniform(5, 14) * size / 256
    moved = cv2.remap(
        image,
        x + strength * np.float32(math.cos(turn) * push),
        y + strength * np.float32(math.sin(turn) * push),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return _where_different(image, np.asarray(moved, np.float32), strength)


def _rough(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
    size = image.shape[0]
    strength = blob(rng, region, size * rng.uniform(0.05, 0.2), rng.uniform(0.3, 0.8))
    noise = grain(rng, size, rng.uniform(0.5, 2)) * rng.uniform(0.1, 0.3)
    return blend(image, strength, image * (1 + noise[..., None])), strength


def _worn(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
    size = image.shape[0]
    strength = blob(rng, region, size * rng.uniform(0.06, 0.2), rng.uniform(0.3, 0.7))
    flat = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(3, 8)), np.float32) * np.float32(
        rng.uniform(0.85, 1.2)
    )
    return _where_different(image, blend(image, strength, flat), strength)


def _bubble(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
    result, strength = image, np.zeros(region.shape, np.float32)
    for _ in range(int(rng.integers(1, 6))):
        radius = image.shape[0] * rng.uniform(0.012, 0.05)
        drop = blob(rng, region, radius, 0.05)
        light = np.asarray(cv2.GaussianBlur(drop, (0, 0), radius / 2), np.float32)
        turn = rng.uniform(0, 2 * np.pi)
        slope = cv2.Sobel(light, cv2.CV_32F, 1, 0) * math.cos(turn) + cv2.Sobel(light, cv2.CV_32F, 0, 1) * math.sin(
            turn
        )
        slope = np.asarray(slope, np.float32) / np.float32(max(float(np.abs(slope).max()), 1e-6))
        result = result * (1 + 0.5 * (slope * np.minimum(drop * 2, 1))[..., None])
        strength = np.maximum(strength, drop)
    return result, strength


def _faded(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
    strength = blob(rng, region, image.shape[0] * rng.uniform(0.06, 0.22), rng.uniform(0.3, 0.8))
    grey = image.mean(axis=2, keepdims=True)
    change = (
        grey * rng.uniform(0.9, 1.3) if rng.random() < 0.4 else image[..., rng.permutation(3)] * rng.uniform(0.7, 1.3)
    )
    if np.abs(change - image).mean() < 0.06:
        change = image * np.float32(rng.choice([0.65, 1.4]))
    return blend(image, strength * rng.uniform(0.6, 1), np.asarray(change, np.float32)), strength


def _burnt(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
    size = image.shape[0]
    strength = blob(rng, region, size * rng.uniform(0.05, 0.16), 0.6)
    strength = np.asarray(cv2.GaussianBlur(strength, (0, 0), size * rng.uniform(0.01, 0.03)), np.float32) * region
    return blend(image, strength, image * np.array([0.1, 0.15, 0.25], np.float32)), strength


def _misprint(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
    size = image.shape[0]
    canvas = np.zeros((size, size), np.uint8)
    text = "".join(chr(int(c)) for c in rng.integers(48, 91, int(rng.integers(1, 6))))
    scale = size / 256 * rng.uniform(0.5, 1.4)
    cv2.putText(
        canvas, text, inside(rng, region), int(rng.integers(0, 4)), scale, 255, int(rng.integers(1, 4)), cv2.LINE_AA
    )
    strength = np.asarray(canvas / 255 * region, np.float32)
    if rng.random() < 0.5:
        twice = np.roll(strength, tuple(int(v) for v in rng.integers(-5, 6, 2)), (0, 1)) * region
        strength = np.maximum(strength, twice * np.float32(0.6))
    return blend(image, strength, _contrary(rng, image, strength)), np.clip(strength * 1.5, 0, 1)


def _fray(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
    """Loose threads, chips and tears that stand out of one spot in about one direction."""
    size = image.shape[0]
    canvas = np.zeros((size, size), np.uint8)
    x0, y0 = inside(rng, region)
    turn, spread = rng.uniform(0, 2 * np.pi), size * rng.uniform(0.03, 0.12)
    for _ in range(int(rng.integers(8, 40))):
        along, away = rng.normal(0, spread), turn + rng.normal(0, 0.35)
        x, y = x0 - along * math.sin(turn), y0 + along * math.cos(turn)
        length = size * rng.uniform(0.03, 0.14)
        end = (int((x + length * math.cos(away)) * 16), int((y + length * math.sin(away)) * 16))
        cv2.line(canvas, (int(x * 16), int(y * 16)), end, 255, int(rng.choice([1, 1, 2])), cv2.LINE_AA, 4)
    strength = np.asarray(canvas / 255 * region, np.float32)
    frayed = blend(image, strength * rng.uniform(0.6, 1), _contrary(rng, image, strength))
    closed = cv2.morphologyEx(strength, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    return frayed, np.asarray(closed, np.float32) * region


def _uneven(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
    """A large part of the surface with another finish: rougher or smoother, and darker or brighter."""
    size = image.shape[0]
    if rng.random() < 0.5:
        strength = blob(rng, region, size * rng.uniform(0.15, 0.35), rng.uniform(0.1, 0.6))
    else:
        ramp = np.linspace(-1, 1, size, dtype=np.float32)
        turn = rng.choice([0.0, 0.5, 1.0, 1.5]) * np.pi + rng.normal(0, 0.15)
        edge = ramp[None, :] * math.cos(turn) + ramp[:, None] * math.sin(turn) - rng.uniform(0.3, 0.85)
        edge = edge + (fractal(rng, size, 4, 3) - 0.5) * rng.uniform(0, 0.5)
        strength = np.clip(edge * rng.uniform(10, 80), 0, 1).astype(np.float32) * region
    even = np.asarray(cv2.GaussianBlur(image, (0, 0), size * 0.03), np.float32)
    contrast = rng.uniform(0.1, 0.5) if rng.random() < 0.5 else rng.uniform(1.6, 2.6)
    other = even * np.float32(rng.choice([0.6, 0.75, 1.0, 1.3, 1.5])) + (image - even) * np.float32(contrast)
    return _where_different(
        image, blend(image, strength * rng.uniform(0.7, 1), np.asarray(other, np.float32)), strength
    )


def _where_different(before: Paint, after: Paint, strength: Field) -> tuple[Paint, Field]:
    """The mask only where something can be seen to have changed."""
    seen = np.clip(np.abs(after - before).max(axis=2) * 10, 0, 1)
    seen = np.asarray(cv2.GaussianBlur(cv2.dilate(seen, np.ones((5, 5), np.uint8)), (0, 0), 1.5), np.float32)
    return after, np.minimum(seen, np.clip(strength * 1.5, 0, 1))


DEFECTS: dict[str, Defect] = {
    "scratch": Defect("a scratch", _scratch),
    "crack": Defect("a crack", _crack),
    "hairline": Defect("a hairline crack", _hairline),
    "growth": Defect("a lump in it", _growth),
    "hole": Defect("a hole", _hole),
    "pores": Defect("pores", _pores),
    "dent": Defect("a dent", _dent),
    "stain": Defect("a stain", _stain),
    "paint": Defect("spots of paint", _paint),
    "foreign body": Defect("a foreign body on it", _foreign),
    "cut": Defect("a cut", _cut),
    "broken pattern": Defect("a broken pattern", _patch),
    "bend": Defect("a bent part", _bent),
    "rough spot": Defect("a rough spot", _rough),
    "wear": Defect("a worn spot", _worn),
    "bubbles": Defect("bubbles", _bubble),
    "discoloration": Defect("a discoloration", _faded),
    "burn": Defect("a burn", _burnt),
    "misprint": Defect("a misprint", _misprint),
    "fraying": Defect("fraying", _fray),
    "uneven finish": Defect("an uneven finish", _uneven),
}
"""By name; missing parts are made by the scene, which knows the ground."""
