"""Waits before the next try."""

from __future__ import annotations

import random
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.system.backoff import Backoff


@given(
    first=st.floats(0.01, 2),
    most=st.floats(0.01, 60),
    scatter=st.floats(0, 0.9),
    seed=st.integers(0, 2**32),
)
def test_waits_grow_to_their_limit_and_are_scattered_around_it(first, most, scatter, seed):
    waits = list(islice(Backoff(first, most, scatter).waits(random.Random(seed)), 20))
    assert all(0 <= wait <= most * (1 + scatter) + 1e-9 for wait in waits)
    assert all(wait >= most * (1 - scatter) - 1e-9 for wait in waits[15:])
    assert waits[0] <= min(first, most) * (1 + scatter) + 1e-9


def test_unscattered_waits_double_up_to_their_limit():
    assert list(islice(Backoff(0.5, 15.0, scatter=0.0).waits(), 7)) == [0.5, 1, 2, 4, 8, 15, 15]
