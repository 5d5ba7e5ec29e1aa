"""Merged rows of anomalous pixels."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.metrics.slices import merge

ROWS = st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 0.5, 7.0]), st.integers(1, 4), st.integers(1, 2**32 - 1)))


def columns(rows):
    values, sizes, counts = zip(*rows, strict=True) if rows else ((), (), ())
    return np.array(values, np.float32), np.array(sizes, np.uint32), np.array(counts, np.uint32)


@given(ROWS)
def test_merge_adds_up_what_agrees(rows):
    """Counts of several portions together may pass 32 bits."""
    expected = {}
    for value, size, count in rows:
        expected[value, size] = expected.get((value, size), 0) + count
    values, sizes, counts = merge(*columns(rows))
    found = [((float(v), int(s)), int(c)) for v, s, c in zip(values, sizes, counts, strict=True)]
    assert found == sorted(expected.items())
