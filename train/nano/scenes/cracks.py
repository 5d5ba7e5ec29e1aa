"""Defects that are lines: scratches, cracks, cuts and loose threads; each as `Defect.apply` has it."""

from __future__ import annotations

import math

import cv2
import numpy as np

from kanoclip.train.nano.scenes.marks import blend, contrary, inside, line, path
from kanoclip.train.nano.scenes.materials import Paint
from kanoclip.train.nano.scenes.noise import Field, Rng


def scratch(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
    """Up to four fine lines, of another tone than what they cover."""
    size = image.shape[0]
    strength = np.zeros((size, size), np.float32)
    for _ in range(int(rng.choice([1, 1, 2, 4]))):
        width = int(rng.choice([1, 1, 2, 3]))
        strength = np.maximum(strength, line(rng, region, size * rng.uniform(0.1, 0.6), rng.uniform(0, 0.12), width))
    return blend(image, strength * rng.uniform(0.5, 1), contrary(rng, image, strength)), strength


def crack(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
    """A dark line with branches."""
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
    return blend(image, strength, dark if rng.random() < 0.8 else contrary(rng, image, strength)), strength


def hairline(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
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


def cut(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
    """A straight slit, with a lip that catches the light."""
    size = image.shape[0]
    strength = line(rng, region, size * rng.uniform(0.15, 0.5), 0.02, int(rng.choice([2, 3, 4])))
    result = blend(image, strength, image * np.float32(rng.uniform(0.1, 0.4)))
    lip = np.clip(np.roll(strength, (-2, -1), (0, 1)) - strength, 0, 1)
    return result * (1 + 0.5 * lip[..., None]), np.maximum(strength, lip * region)


def fray(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
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
    frayed = blend(image, strength * rng.uniform(0.6, 1), contrary(rng, image, strength))
    closed = cv2.morphologyEx(strength, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    return frayed, np.asarray(closed, np.float32) * region
