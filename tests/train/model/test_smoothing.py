"""The constant pair of matrices against interpolation and convolution."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from kanoclip.train.model.smoothing import MapSmoothing, bilinear_matrix, gaussian_matrix

SHAPES = [
    ((6, 6), (48, 48)),
    ((24, 24), (336, 336)),
    ((3, 7), (48, 112)),
    ((9, 2), (72, 16)),
    ((1, 1), (8, 8)),
    ((1, 5), (16, 80)),
]


def convolved(signal: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian cut at 4 sigma over the mirrored signal, as scipy.ndimage.gaussian_filter1d(mode='reflect')."""
    radius = math.ceil(4 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    padded = np.pad(signal, radius, mode="symmetric")
    return np.convolve(padded, kernel / kernel.sum(), mode="valid")


@settings(max_examples=150, deadline=None)
@given(size=st.integers(1, 70), sigma=st.floats(0.05, 60))
def test_gaussian_is_a_convolution_with_mirrored_edges(size, sigma):
    matrix = gaussian_matrix(size, sigma)
    signal = np.random.default_rng(size).normal(size=size)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-12)
    assert matrix.min() >= 0
    np.testing.assert_allclose(matrix @ signal, convolved(signal, sigma), atol=1e-10)


@settings(max_examples=150, deadline=None)
@given(size=st.integers(1, 90), cells=st.integers(1, 40))
def test_bilinear_is_interpolate(size, cells):
    matrix = bilinear_matrix(size, cells)
    signal = torch.randn(1, 1, cells, generator=torch.Generator().manual_seed(cells), dtype=torch.float64)
    expected = F.interpolate(signal, size=size, mode="linear", align_corners=False)[0, 0]
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-12)
    assert matrix.min() >= 0
    np.testing.assert_allclose(matrix @ signal[0, 0].numpy(), expected.numpy(), atol=1e-10)


@pytest.mark.parametrize(("grid", "size"), SHAPES)
def test_upsample_is_interpolate(normal, grid, size):
    cells = normal(2, *grid)
    expected = F.interpolate(cells[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(MapSmoothing(grid, size).upsample(cells), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("grid", "size"), [shape for shape in SHAPES if min(shape[1]) > 8])
def test_forward_is_interpolate_and_opencvs_gaussian(normal, grid, size):
    cells = normal(2, *grid)
    sigma = 4 * size[0] / 336
    kernel = 2 * math.ceil(4 * sigma) + 1
    upsampled = F.interpolate(cells[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    blurred = MapSmoothing(grid, size)(cells)
    for got, image in zip(blurred, upsampled, strict=True):
        expected = cv2.GaussianBlur(
            image.double().numpy(), (kernel, kernel), sigma, sigmaY=sigma, borderType=cv2.BORDER_REFLECT
        )
        np.testing.assert_allclose(got.numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("size", [336, 518])
def test_sigma_is_four_pixels_at_336(size):
    impulse = gaussian_matrix(size, 4 * size / 336)[size // 2]
    offsets = np.arange(size) - size // 2
    assert math.isclose(math.sqrt((impulse * offsets**2).sum()), 4 * size / 336, rel_tol=2e-3)
    smoothing = MapSmoothing((2, 2), (size, size))
    expected = gaussian_matrix(size, 4 * size / 336) @ bilinear_matrix(size, 2)
    np.testing.assert_allclose(smoothing.k_rows.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(("grid", "size"), SHAPES)
def test_matrices_average_and_a_constant_map_stays_constant(grid, size):
    smoothing = MapSmoothing(grid, size)
    for name, axis in (("rows", 0), ("columns", 1)):
        for kind in "ku":
            matrix = getattr(smoothing, f"{kind}_{name}")
            assert matrix.shape == (size[axis], grid[axis]) and matrix.dtype == torch.float32
            torch.testing.assert_close(matrix.sum(1), torch.ones(size[axis]), rtol=0, atol=1e-6)
    for elementwise in (False, True):
        smoothing.elementwise = elementwise
        constant = smoothing(torch.full((2, *grid), 0.37))
        torch.testing.assert_close(constant, torch.full((2, *size), 0.37), rtol=0, atol=1e-6)
        assert smoothing(torch.zeros(1, *grid)).abs().max() == 0


@pytest.mark.parametrize(("grid", "size"), SHAPES)
def test_elementwise_form_is_the_matmul_form(normal, grid, size):
    smoothing = MapSmoothing(grid, size)
    cells = normal(3, *grid).sigmoid()
    by_matmul = smoothing(cells)
    smoothing.elementwise = True
    by_elements = smoothing(cells)
    assert by_elements.shape == (3, *size)
    torch.testing.assert_close(by_elements, by_matmul, rtol=0, atol=1e-6)


def test_holds_nothing_that_a_checkpoint_would_store():
    assert MapSmoothing((2, 2), (16, 16)).state_dict() == {}
