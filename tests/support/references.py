"""Descriptors and memories that are made up: a smooth part on a smooth ground, and defects on it."""

from __future__ import annotations

import numpy as np

from kanoclip.runtime.detect.reference.fit import References, fit

DIGEST = "ab" * 32


def unit(vectors):
    """Unit vectors, [..., D]."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def frames(count, grid=(8, 8), channels=16, seed=0, noise=0.05):
    """Descriptors [count, 1, P, channels] of frames that differ by noise; the part is the same for every seed."""
    part = np.random.default_rng(1234).standard_normal((1, 1, grid[0] * grid[1], channels))
    return unit(unit(part) + noise * np.random.default_rng(seed).standard_normal((count, *part.shape[1:])))


def references(count, grid=(8, 8), size=(32, 32), seed=0, **options):
    """References of such frames, whose zero-shot maps are low noise."""
    maps = np.random.default_rng(seed + 1).uniform(0.05, 0.2, (count, 1, *size)).astype(np.float32)
    return References.of(
        tuple(f"{n:02}.png" for n in range(count)), frames(count, grid, seed=seed, **options), maps, grid
    )


def memory(count=4, rows=64, digest=DIGEST, **options):
    """A memory of such references."""
    return fit(references(count, **options), descriptor_sha256=digest, rows=rows)
