"""Where surfaces end and what reaches into an image from outside, all of it harmless."""

from __future__ import annotations

import numpy as np

from kanoclip.train.nano.scenes.materials import Paint, any_colour
from kanoclip.train.nano.scenes.noise import Field, Rng, fractal, smooth


def end_of_surface(rng: Rng, image: Paint) -> tuple[Paint, Field, Paint]:
    """A surface that ends inside the image: (image, where it is, what lies beyond).

    It ends at one or two sides, or at all four with its corners square, cut off or round, and sometimes with notches
    in two opposite sides: none of that is a defect, and a corner is no more of one than the middle is.
    """
    size = image.shape[0]
    region = _sides(rng, size) if rng.random() < 0.45 else _plate(rng, size)
    tone = any_colour(rng) * np.float32(rng.choice([0.1, 0.3, 1.0])) if rng.random() < 0.8 else np.ones(3, np.float32)
    beyond = np.broadcast_to(tone, image.shape)
    return np.asarray(beyond + region[..., None] * (image - beyond), np.float32), region, beyond


def intrude(rng: Rng, image: Paint, region: Field) -> tuple[Paint, Field]:
    """Bits of a neighbour, a clamp or a label that the image's border cuts: (image, what is left of the region)."""
    size = image.shape[0]
    ramp = np.arange(size, dtype=np.float32)
    left = region
    tone = np.float32(rng.choice([rng.uniform(0, 0.12), rng.uniform(0.9, 1.0)]))
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        along, radius = rng.uniform(0, size), size * rng.uniform(0.02, 0.09)
        squeeze, out = rng.uniform(0.5, 2.2), size * rng.uniform(-0.01, 0.03)
        distance = np.sqrt(((ramp[None, :] - along) / squeeze) ** 2 + (ramp[:, None] + out) ** 2)
        ragged = 1 + 0.5 * (fractal(rng, size, 24, 3) - 0.5)
        bit = np.clip(ragged * radius - distance + 0.5, 0, 1).astype(np.float32)
        bit = np.rot90(bit, int(rng.integers(4)))
        image = image + bit[..., None] * (tone - image)
        left = left * (1 - bit)
    return np.asarray(image, np.float32), left.astype(np.float32)


def _sides(rng: Rng, size: int) -> Field:
    ramp = np.arange(size, dtype=np.float32)
    region = np.ones((size, size), np.float32)
    for _ in range(int(rng.choice([1, 1, 2]))):
        edge = ramp - size * rng.uniform(0.03, 0.22) + (smooth(rng, size, 5)[0] - 0.5) * rng.uniform(0, 4)
        inside = np.clip(edge / np.float32(rng.uniform(1, 6)), 0, 1)
        region = region * np.rot90(np.broadcast_to(inside, (size, size)), int(rng.integers(4)))
    return region.astype(np.float32)


def _plate(rng: Rng, size: int) -> Field:
    """A rectangle whose border is near the image's or just outside of it."""
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    x, y = np.abs(ramp)[None, :], np.abs(ramp)[:, None]
    width, height = rng.uniform(0.84, 1.04, 2)
    corner = rng.choice([0.0, rng.uniform(0.05, 0.3), rng.uniform(0.05, 0.3)])
    if rng.random() < 0.5:  # cut off
        distance = np.minimum(np.minimum(width - x, height - y), (width + height - corner - x - y) / np.sqrt(2))
    else:  # round
        over = np.sqrt(np.maximum(x - width + corner, 0) ** 2 + np.maximum(y - height + corner, 0) ** 2)
        distance = np.minimum(corner - over, np.minimum(width - x, height - y))
    if rng.random() < 0.2:
        count, deep = int(rng.integers(2, 5)), rng.uniform(0.02, 0.07)
        for at in np.linspace(-1, 1, 2 * count + 1)[1::2]:
            distance = np.minimum(distance, np.hypot(x - width, ramp[:, None] - at) - deep)
    soft = rng.uniform(1, 7) * 2 / size
    region = np.clip(distance / soft + 0.5, 0, 1).astype(np.float32)
    return np.rot90(region, int(rng.integers(2))).copy()
