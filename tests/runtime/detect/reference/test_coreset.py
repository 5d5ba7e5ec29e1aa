"""The choice of rows: different, the same again, and covering all better than chance does."""

from __future__ import annotations

from time import thread_time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.detect.reference.coreset import greedy_rows, projected, random_rows


def cloud(count, channels, seed=0):
    """Many points in a few clusters, and a few far from all."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((5, channels))
    points = centres[rng.integers(5, size=count)] + 0.1 * rng.standard_normal((count, channels))
    points[:: max(count // 7, 1)] += 2 * rng.standard_normal(channels)
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def radius(points, chosen):
    return np.sqrt(np.maximum(2 - 2 * (points @ points[chosen].T).max(1), 0)).max()


@pytest.mark.parametrize("choose", [greedy_rows, random_rows])
@given(count=st.integers(0, 60), rows=st.integers(1, 40), seed=st.integers(0, 3))
def test_a_subset_of_its_size(choose, count, rows, seed):
    chosen = choose(cloud(count, 8) if choose is greedy_rows else count, rows, seed)
    assert len(chosen) == min(count, rows) == len(set(chosen.tolist()))
    assert set(chosen.tolist()) <= set(range(count))


@pytest.mark.parametrize("choose", [lambda p, s: greedy_rows(p, 30, s), lambda p, s: random_rows(len(p), 30, s)])
def test_the_seed_decides(choose):
    points = cloud(1000, 96)
    assert choose(points, 3).tolist() == choose(points.copy(), 3).tolist()
    assert choose(points, 3).tolist() != choose(points, 4).tolist()


@pytest.mark.parametrize("channels", [16, 384])
def test_the_cover_is_no_worse_than_a_random_one(channels):
    points = cloud(1500, channels)
    greedy = [radius(points, greedy_rows(points, 40, seed)) for seed in range(5)]
    random = [radius(points, random_rows(len(points), 40, seed)) for seed in range(5)]
    assert np.mean(greedy) < np.mean(random)


def test_without_a_projection_the_radius_is_at_most_twice_the_best():
    """Of 3 rows for points in 3 tight clusters, one is in each."""
    rng = np.random.default_rng(0)
    points = np.repeat(np.eye(3), 20, 0) + 0.01 * rng.standard_normal((60, 3))
    assert sorted(greedy_rows(points, 3) // 20) == [0, 1, 2]


def test_identical_points_are_chosen_once_each():
    chosen = greedy_rows(np.ones((50, 4), np.float32), 20)
    assert len(set(chosen.tolist())) == 20


def test_the_projection_keeps_distances_about():
    points = cloud(200, 384)
    small = projected(points, 0)
    true = np.linalg.norm(points[:100] - points[100:], axis=1)
    found = np.linalg.norm(small[:100] - small[100:], axis=1)
    assert small.shape == (200, 64)
    assert np.abs(found / true - 1).mean() < 0.15
    assert projected(points[:, :32], 0) is not points and np.array_equal(projected(points[:, :32], 0), points[:, :32])


@pytest.mark.nightly
def test_it_is_quick():
    points = cloud(20_000, 384)
    spent = []
    for _ in range(3):
        start = thread_time()
        greedy_rows(points, 1024)
        spent.append(thread_time() - start)
    assert min(spent) < 0.3
