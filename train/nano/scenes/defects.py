"""Defects: each changes an image inside a region it may touch, and says which pixels it changed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from kanoclip.train.nano.scenes.cracks import crack, cut, fray, hairline, scratch
from kanoclip.train.nano.scenes.marks import blend, blob, contrary, inside, line, where_different
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


def _growth(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
    """A lump of other tone with a texture of its own, and sometimes a bright rim, in what is else alike."""
    size = image.shape[0]
    radius = size * rng.uniform(0.04, 0.14)
    strength = blob(rng, region, radius, rng.uniform(0.2, 0.6))
    soft = np.asarray(cv2.GaussianBlur(strength, (0, 0), rng.uniform(0.6, 4)), np.float32) * region
    tone = (
        contrary(rng, image, strength)
        * (0.6 + 0.8 * fractal(rng, size, size / radius * rng.uniform(0.5, 3), 3))[..., None]
    )
    result = blend(image, soft * rng.uniform(0.6, 1), np.asarray(tone, np.float32))
    if rng.random() < 0.4:
        inner = np.asarray(
            cv2.erode(strength, np.ones((3, 3), np.uint8), iterations=max(1, int(radius / 8))), np.float32
        )
        result = blend(result, (strength - inner) * rng.uniform(0.4, 1), np.full(3, rng.uniform(0.6, 1), np.float32))
    return where_different(image, result, np.maximum(soft, strength))


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


def _patch(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
    """A part of the image from elsewhere, turned: broken order in a pattern, a swapped or extra part."""
    size = image.shape[0]
    strength = blob(rng, region, size * rng.uniform(0.05, 0.16), 0.3)
    other = np.rot90(image, int(rng.integers(1, 4)))
    other = np.roll(other, tuple(int(v) for v in rng.integers(size // 5, size * 4 // 5, 2)), (0, 1))
    return where_different(image, blend(image, strength, other), strength)


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
    return where_different(image, np.asarray(moved, np.float32), strength)


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
    return where_different(image, blend(image, strength, flat), strength)


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
    return blend(image, strength, contrary(rng, image, strength)), np.clip(strength * 1.5, 0, 1)


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
    return where_different(image, blend(image, strength * rng.uniform(0.7, 1), np.asarray(other, np.float32)), strength)


DEFECTS: dict[str, Defect] = {
    "scratch": Defect("a scratch", scratch),
    "crack": Defect("a crack", crack),
    "hairline": Defect("a hairline crack", hairline),
    "growth": Defect("a lump in it", _growth),
    "hole": Defect("a hole", _hole),
    "pores": Defect("pores", _pores),
    "dent": Defect("a dent", _dent),
    "stain": Defect("a stain", _stain),
    "paint": Defect("spots of paint", _paint),
    "foreign body": Defect("a foreign body on it", _foreign),
    "cut": Defect("a cut", cut),
    "broken pattern": Defect("a broken pattern", _patch),
    "bend": Defect("a bent part", _bent),
    "rough spot": Defect("a rough spot", _rough),
    "wear": Defect("a worn spot", _worn),
    "bubbles": Defect("bubbles", _bubble),
    "discoloration": Defect("a discoloration", _faded),
    "burn": Defect("a burn", _burnt),
    "misprint": Defect("a misprint", _misprint),
    "fraying": Defect("fraying", fray),
    "uneven finish": Defect("an uneven finish", _uneven),
}
"""By name; missing parts are made by the scene, which knows the ground."""
