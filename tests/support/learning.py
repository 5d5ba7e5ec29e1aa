"""Images of a part that a toy bundle can learn: each cell has a colour of its own."""

from __future__ import annotations

import cv2
import numpy as np
from references import references

from kanoclip.runtime.ops.learn.observe import Observed


def images(count, seed=0, size=(32, 32), other=False):
    """uint8 [count, H, W, 3]: 8 x 8 cells of colours, and a little noise; `other` is another product."""
    rng = np.random.default_rng(seed)
    part = np.random.default_rng(99 if other else 7).integers(20, 120, (8, 8, 3))
    cells = part + rng.integers(-4, 5, (count, 8, 8, 3))
    found = [cv2.resize(one.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST) for one in cells]
    return np.stack(found)


def defective(image):
    """The image with a bright blue spot."""
    bad = image.copy()
    height, width = bad.shape[:2]
    bad[height // 4 : height // 2, width // 4 : width // 2] = 255, 0, 0
    return bad


def folder(place, count, start=0, **options):
    """Writes such images."""
    place.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images(count, **options), start):
        assert cv2.imwrite(str(place / f"{number:02}.png"), image)
    return place


def observed(count, sizes=None, refs=None):
    """Frames as `observe` gives them."""
    refs = refs or references(count)
    thumbnails = tuple(np.full((20, 30, 3), 10 * n % 256, np.uint8) for n in range(len(refs)))
    return Observed(refs, tuple(sizes or [(480, 640)] * len(refs)), thumbnails, ())
