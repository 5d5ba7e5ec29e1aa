"""What happens between a thing and its image, all of it harmless: light, shadow, print, pose, blur, noise."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from kanoclip.runtime.types import Image
from kanoclip.train.nano.scenes.materials import Paint, any_colour
from kanoclip.train.nano.scenes.noise import Field, Rng, smooth


def distract(rng: Rng, image: Paint, region: Field) -> Paint:
    """Things that are no defects: seams, print, reflections. None of them in many images."""
    size = image.shape[0]
    if rng.random() < 0.15:  # straight seams or grooves from border to border, evenly spaced
        canvas = np.zeros((size, size), np.float32)
        step, width = int(rng.integers(size // 5, size)), int(rng.integers(1, 5))
        for at in range(int(rng.integers(0, step)), size, step):
            canvas[:, at : at + width] = 1
        canvas = canvas if rng.random() < 0.5 else canvas.T
        image = image * (1 + (canvas * region * rng.choice([-0.5, -0.3, 0.3]))[..., None])
    if rng.random() < 0.1:  # print: a neat line of text or a bar code
        canvas = np.zeros((size, size), np.uint8)
        x, y = (int(v) for v in rng.integers(size // 8, size // 2, 2))
        if rng.random() < 0.6:
            text = "".join(chr(int(c)) for c in rng.integers(65, 91, int(rng.integers(3, 9))))
            cv2.putText(canvas, text, (x, y), int(rng.integers(0, 4)), size / 256 * 0.9, 255, 2, cv2.LINE_AA)
        else:
            for bar in np.cumsum(rng.integers(2, 7, 14)):
                cv2.rectangle(canvas, (x + int(bar), y), (x + int(bar) + 1, y + size // 8), 255, -1)
        strength = canvas.astype(np.float32)[..., None] / 255 * region[..., None]
        image = image + strength * (any_colour(rng) - image)
    if rng.random() < 0.2:  # reflections of lamps
        for _ in range(int(rng.integers(1, 4))):
            spot = np.zeros((size, size), np.float32)
            centre = tuple(int(v) for v in rng.integers(0, size, 2))
            axes = (int(rng.integers(3, size // 8)), int(rng.integers(2, size // 14)))
            cv2.ellipse(spot, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
            spot = np.asarray(cv2.GaussianBlur(spot, (0, 0), rng.uniform(2, 12)), np.float32)
            image = image + (spot * region)[..., None] * rng.uniform(0.1, 0.5)
    return np.asarray(image, np.float32)


def light(rng: Rng, image: Paint) -> Paint:
    """Uneven light, soft or hard shadows from outside, a tint, contrast."""
    size = image.shape[0]
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    x, y = ramp[None, :], ramp[:, None]
    turn = rng.uniform(0, 2 * np.pi)
    field = 1 + rng.uniform(0, 0.35) * (x * math.cos(turn) + y * math.sin(turn)) - rng.uniform(0, 0.25) * (x**2 + y**2)
    if rng.random() < 0.15:
        edge = (x * math.cos(turn) + y * math.sin(turn) - rng.uniform(-0.8, 0.8)) * rng.uniform(3, 20)
        field = field * (1 - rng.uniform(0.15, 0.5) / (1 + np.exp(-np.clip(edge, -30, 30))))
    if rng.random() < 0.3:
        field = field * (0.85 + 0.3 * smooth(rng, size, 3))
    image = image * field[..., None].astype(np.float32)
    if rng.random() < 0.4:
        image = image * rng.uniform(0.85, 1.15, 3).astype(np.float32)
    image = np.asarray(cv2.pow(np.clip(image, 0, 1), rng.uniform(0.7, 1.4)), np.float32)
    contrast, brightness = rng.uniform(0.75, 1.15), rng.uniform(-0.08, 0.08)
    return image * np.float32(contrast) + np.float32(0.5 - 0.5 * contrast + brightness)


def pose(rng: Rng, image: Paint, *masks: Field, upright: bool) -> tuple[npt.NDArray[np.float32], ...]:
    """The same turn, scale, shift and lean for an image and its masks; the border repeats mirrored."""
    size = image.shape[0]
    turn = rng.uniform(-8, 8) + 90 * int(rng.integers(4)) if upright else rng.uniform(0, 360)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
    leant = corners * rng.uniform(0.75, 1.2) + rng.uniform(-0.08, 0.08, (4, 2))
    if rng.random() < 0.3:  # a long image pressed into the square that the model wants
        leant *= rng.permutation([1.0, rng.uniform(1, 2.2)])
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    leant = leant @ np.array([[cos, sin], [-sin, cos]]) + rng.uniform(-0.06, 0.06, 2)
    half = (size - 1) / 2
    matrix = cv2.getPerspectiveTransform(
        ((corners + 1) * half).astype(np.float32), ((leant + 1) * half).astype(np.float32)
    )
    return tuple(
        np.asarray(
            cv2.warpPerspective(one, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101),
            np.float32,
        )
        for one in (image, *masks)
    )


def shoot(rng: Rng, image: Paint) -> Image:
    """Blur, colour or grey, sensor noise, compression: uint8 [size, size, 3]."""
    if rng.random() < 0.5:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.6)), np.float32)
    if rng.random() < 0.3:
        image = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    if rng.random() < 0.6:
        noise = rng.standard_normal((*image.shape[:2], int(rng.choice([1, 3]))), dtype=np.float32)
        image = image + noise * np.float32(rng.uniform(0.003, 0.05))
    pixels = np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)
    if rng.random() < 0.4:
        _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 96))])
        pixels = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    return pixels
