from __future__ import annotations

import numpy as np
import pytest

from kanoclip.benchmarks.studies.streams.trend import grows, trend

MB_AN_HOUR = 1.0


def memory(seconds=120, start=200.0, noise=0.05, leak_mb_s=0.0, seed=0, page_mb=0.135):
    """Samples of a process each second: heaps grow by steps, and each sample holds what frames take for a moment."""
    rng = np.random.default_rng(seed)
    times = np.arange(seconds, dtype=float)
    floor = start + np.floor(times * leak_mb_s / page_mb) * page_mb
    return list(times), list(floor + np.abs(rng.normal(0, noise, seconds)))


def test_a_line_is_found():
    times = np.arange(0, 1800.0)
    found = trend(times, 5 + 3 * times / 3600)
    assert found.per_hour == pytest.approx(3) and found.low == pytest.approx(3) and found.high == pytest.approx(3)
    assert (found.blocks, found.mean) == (360, pytest.approx(5.75, abs=0.01))
    assert found.hours == pytest.approx(1795 / 3600)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
def test_the_interval_holds_the_truth_about_as_often_as_it_says_also_with_correlated_noise(correlation):
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(300):
        noise = np.zeros(60)
        for index in range(1, 60):
            noise[index] = correlation * noise[index - 1] + rng.normal()
        times = np.arange(60) * 5.0
        found = trend(times, 10 + 2 * times / 3600 + noise)
        held += found.low <= 2 <= found.high
    assert held / 300 > 0.88


def test_flat_memory_does_not_grow():
    assert sum(grows(*memory(seed=seed), MB_AN_HOUR) for seed in range(100)) <= 1


@pytest.mark.parametrize("bytes_a_frame, fps", [(100_000, 20), (1_000, 20), (1_000, 30)])
def test_a_leak_grows(bytes_a_frame, fps):
    for seed in range(20):
        assert grows(*memory(leak_mb_s=bytes_a_frame * fps / 1e6, seed=seed), MB_AN_HOUR)


@pytest.mark.parametrize("at", [10, 40, 59, 60, 61, 100])
@pytest.mark.parametrize("step", [0.3, 2.0, 20.0])
def test_a_step_is_no_growth(at, step):
    times, values = memory()
    assert not grows(times, [value + step * (time >= at) for time, value in zip(times, values, strict=True)], 1.0)


def test_what_settles_does_not_grow():
    times, values = memory(noise=0.02)
    settling = [value - 5 * np.exp(-time / 8) for time, value in zip(times, values, strict=True)]
    assert trend(times, settling).per_hour > 20 * MB_AN_HOUR
    assert not grows(times, settling, MB_AN_HOUR)


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="3 blocks of 5 s are too few"):
        trend([0, 5, 10], [1, 2, 3])
    with pytest.raises(ValueError, match="0 blocks"):
        trend([], [])
