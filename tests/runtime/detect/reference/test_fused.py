"""What the graph computes, against the same written out cell by cell."""

from __future__ import annotations

import numpy as np
import pytest
from references import frames, memory

from kanoclip.runtime.detect.reference import fused as module
from kanoclip.runtime.detect.reference.fused import fuse, fused, logits, nearest
from kanoclip.runtime.detect.reference.smoothing import smooth
from kanoclip.runtime.engines.inputs import MemoryTensors


def test_distances_one_by_one():
    tensors, x = memory().tensors(), frames(3, seed=9)[:, 0]
    expected = np.empty(x.shape[:2])
    for i in range(3):
        for p in range(x.shape[1]):
            moved = x[i, p] - tensors.centre
            expected[i, p] = 1 - max(float(row @ moved) for row in tensors.rows) / np.linalg.norm(moved)
    np.testing.assert_allclose(nearest(x, tensors), expected, atol=1e-5)
    assert nearest(x, tensors).dtype == np.float32


def test_blocks_change_nothing(monkeypatch):
    tensors, x = memory().tensors(), frames(3, seed=9)[:, 0]
    whole = nearest(x, tensors)
    monkeypatch.setattr(module, "BLOCK", 7)
    np.testing.assert_allclose(nearest(x, tensors), whole, atol=1e-6)


def test_padding_changes_nothing():
    tensors, x = memory().tensors(), frames(3, seed=9)[:, 0]
    assert np.array_equal(nearest(x, tensors.padded(200)), nearest(x, tensors))


def test_the_formula():
    tensors, x = memory().tensors(), frames(2, seed=9)[:, 0]
    zero = np.random.default_rng(0).random((2, 32, 32), np.float32)
    maps, scores = fused(x, zero, tensors, (8, 8))
    _, gain, offset, zero_gain, zero_offset, shift, *_ = map(float, tensors.fusion)
    d = smooth(nearest(x, tensors).reshape(2, 8, 8), (32, 32))
    m = np.clip(zero, 1e-4, 1 - 1e-4).astype(np.float64)
    expected = 1 / (1 + np.exp(-(gain * (d - offset) + zero_gain * (np.log(m / (1 - m)) - zero_offset) + shift)))
    np.testing.assert_allclose(maps, expected, atol=1e-5)
    assert np.array_equal(scores, maps.max((1, 2))) and maps.dtype == scores.dtype == np.float32


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_extreme_maps_are_finite(value):
    assert np.isfinite(logits(np.full((1, 2, 2), value, np.float32))).all()


def test_a_large_distance_is_no_overflow(recwarn):
    maps, _ = fuse(
        np.array([[[-900.0, 900.0]]], np.float32),
        np.full((1, 1, 2), 0.5, np.float32),
        np.eye(8, dtype=np.float32)[0] * 0 + np.array([1, 5, 0, 0, 0, 0, 0, 0], np.float32),
    )
    assert maps.tolist() == [[[0.0, 1.0]]] and not recwarn.list


def test_of_an_empty_memory_no_row_is_near():
    assert nearest(frames(1)[:, 0], MemoryTensors.empty(16)).min() > 1000
