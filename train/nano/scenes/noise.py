"""Random fields that the generated images are made of. All float32."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]
Rng = np.random.Generator


def smooth(rng: Rng, size: int, cells: float, stretch: float = 1.0) -> Field:
    """Smooth noise of about `cells` bumps across the image.

    Args:
        rng: Source of randomness.
        size: Side of the field.
        cells: Bumps from side to side.
        stretch: How many times longer than high the bumps are.

    Returns:
        [size, size], roughly in [0, 1].
    """
    rows, columns = max(2, round(cells)), max(2, round(cells / stretch))
    grid = rng.random((min(rows, size), min(columns, size)), dtype=np.float32)
    return _field(cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC))


def fractal(rng: Rng, size: int, cells: float, octaves: int = 4, gain: float = 0.5, stretch: float = 1.0) -> Field:
    """A sum of ever finer smooth noise, stretched to [0, 1]: [size, size]."""
    total = np.zeros((size, size), np.float32)
    weight = 1.0
    for octave in range(octaves):
        total += np.float32(weight) * smooth(rng, size, cells * 2**octave, stretch)
        weight *= gain
    return unit_range(total)


def grain(rng: Rng, size: int, radius: float) -> Field:
    """Normally distributed noise blurred by `radius` pixels, of mean 0 and deviation 1: [size, size]."""
    field = rng.standard_normal((size, size), dtype=np.float32)
    if radius > 0.2:
        field = _field(cv2.GaussianBlur(field, (0, 0), radius))
        field /= max(float(field.std()), 1e-6)
    return field


def streaks(rng: Rng, size: int, length: int, width: float) -> Field:
    """Horizontal streaks, of mean 0 and deviation 1: [size, size]."""
    field = rng.standard_normal((size, size + length), dtype=np.float32)
    field = _field(cv2.blur(field, (length, 1)))[:, length // 2 : length // 2 + size]
    if width > 0.3:
        field = _field(cv2.GaussianBlur(field, (0, 0), sigmaX=0.3, sigmaY=width))
    return field / np.float32(max(float(field.std()), 1e-6))


def warp(rng: Rng, image: npt.NDArray[np.float32], strength: float, cells: float) -> npt.NDArray[np.float32]:
    """Shifts a field's or image's pixels about, smoothly and by up to `strength` pixels."""
    size = image.shape[0]
    y, x = np.mgrid[:size, :size].astype(np.float32)
    dx, dy = (smooth(rng, size, cells) * 2 - 1 for _ in range(2))
    moved = cv2.remap(image, x + dx * strength, y + dy * strength, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return _field(moved)


def cells(rng: Rng, size: int, count: int) -> Field:
    """Distance to the nearest of `count` random points, 0 to 1: the cells of leather and foam."""
    points = np.full((size, size), 255, np.uint8)
    points[rng.integers(0, size, count), rng.integers(0, size, count)] = 0
    return unit_range(_field(cv2.distanceTransform(points, cv2.DIST_L2, 3)))


def unit_range(field: Field) -> Field:
    """Stretched to [0, 1]."""
    low, high = float(field.min()), float(field.max())
    return (field - np.float32(low)) / np.float32(max(high - low, 1e-6))


def _field(values: npt.NDArray[np.generic] | cv2.typing.MatLike) -> Field:
    return np.asarray(values, dtype=np.float32)
