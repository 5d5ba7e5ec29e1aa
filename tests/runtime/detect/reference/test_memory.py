"""A memory's tensors: centred unit rows, and a bias that makes one product do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from references import memory, unit

from kanoclip.runtime.detect.reference.memory import Fusion, centred, make_tensors


def test_tensors_are_those_of_the_design():
    found = memory().tensors()
    assert [array.dtype for array in found.inputs().values()] == [np.float32] * 4
    np.testing.assert_allclose(np.linalg.norm(found.rows, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found.bias, -(found.rows @ found.centre), atol=1e-6)
    assert found.fusion[0] == 1 and found.fusion.shape == (8,)


def test_tensors_are_built_once():
    one = memory()
    assert one.tensors() is one.tensors()


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=5, max_size=5))
def test_fusion_numbers_come_back(values):
    fusion = Fusion(*values)
    assert Fusion.from_numbers(fusion.numbers()) == fusion


def test_a_descriptor_that_is_the_centre_has_no_direction():
    assert np.isfinite(centred(np.zeros((1, 3), np.float16), np.zeros(3, np.float32))).all()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_bias_makes_the_product_that_of_centred_vectors(share):
    rng = np.random.default_rng(0)
    rows, x = unit(rng.standard_normal((20, 6))).astype(np.float16), unit(rng.standard_normal((9, 6)))
    centre = (share * rows.mean(0)).astype(np.float32)
    tensors = make_tensors(rows, centre, Fusion(1, 0, 0, 0, 0))
    length = np.linalg.norm(x - centre, axis=1, keepdims=True)
    cosine = (x @ tensors.rows.T + tensors.bias) / length
    np.testing.assert_allclose(cosine, centred(x, centre) @ tensors.rows.T, atol=1e-5)
