"""How many independent frames a sequence is worth, on sequences for which it is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.ops.calibration.dependence import dependence


def autoregressive(memory, count, seed):
    random = np.random.default_rng(seed)
    values = [random.normal() / np.sqrt(1 - memory**2)]
    for _ in range(count - 1):
        values.append(memory * values[-1] + random.normal())
    return np.array(values)


@pytest.mark.parametrize("memory", [0.5, 0.8, 0.95])
def test_a_sequence_with_a_known_memory(memory):
    """n (1 - a) / (1 + a); ranks of a normal sequence correlate as its values do, nearly."""
    count = 6000
    found = [dependence(autoregressive(memory, count, seed)) for seed in range(8)]
    expected = count * (1 - memory) / (1 + memory)
    assert np.mean([one.effective for one in found]) == pytest.approx(expected, rel=0.15)
    assert np.mean([one.neighbours for one in found]) == pytest.approx(memory, abs=0.03)
    assert all(one.strong for one in found) is (memory > 0.4)


@pytest.mark.parametrize("count", [20, 100, 1000])
def test_independent_frames_are_hardly_ever_called_dependent(count):
    random = np.random.default_rng(3)
    found = [dependence(random.random(count)) for _ in range(600)]
    assert sum(one.strong for one in found) <= 3
    assert np.median([one.effective for one in found]) > 0.85 * count


def test_a_slow_drift_is_found():
    random = np.random.default_rng(5)
    drifting = np.linspace(0, 1, 2000) + random.normal(0, 0.3, 2000)
    assert dependence(drifting).strong and dependence(drifting).effective < 100
    assert not dependence(random.permutation(drifting)).strong


def test_every_frame_five_times():
    values = np.random.default_rng(7).random(1000).repeat(5)
    found = dependence(values)
    assert found.effective == pytest.approx(1000, rel=0.25)
    assert found.strong and found.spacing in (4, 5, 6)
    thinned = dependence(values[::5])
    assert not thinned.strong and thinned.spacing == 1


def test_the_same_image_over_and_over_is_one():
    found = dependence([0.25] * 500)
    assert found.strong and found.effective == 1 and found.spacing == 500


def test_only_the_order_of_the_values_matters():
    values = autoregressive(0.9, 500, 1)
    assert dependence(np.exp(3 * values)) == dependence(values)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=60))
def test_any_sequence_is_worth_between_one_and_all_of_it(values):
    found = dependence(values)
    assert found.frames == len(values)
    assert 0 < found.effective <= len(values) and -1 - 1e-9 <= found.neighbours <= 1 + 1e-9
    assert found.spacing >= 1
