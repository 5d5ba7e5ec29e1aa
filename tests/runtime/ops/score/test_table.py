"""Masks as runs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from kanoclip.runtime.ops.score.table import decode_runs, encode_runs

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.booleans())


@given(masks)
def test_runs_give_back_the_mask(mask):
    counts = encode_runs(mask)
    assert np.array_equal(decode_runs(counts, *mask.shape), mask)
    assert all(count > 0 for count in counts[1:])  # no empty run but the first
    assert all(isinstance(count, int) for count in counts)


def test_they_are_those_of_coco():
    """Down the columns, unset pixels first: the example by hand."""
    assert encode_runs(np.array([[0, 1, 1], [0, 0, 1]], bool)) == [2, 1, 1, 2]
    assert encode_runs(np.array([[1, 0], [1, 0]], bool)) == [0, 2, 2]
    assert encode_runs(np.zeros((3, 2), bool)) == [6]


@pytest.mark.parametrize("counts", [[5], [7], [3, -1, 4], []])
def test_runs_of_another_size_are_refused(counts):
    with pytest.raises(ValueError, match="mask of 2x3"):
        decode_runs(counts, 2, 3)
