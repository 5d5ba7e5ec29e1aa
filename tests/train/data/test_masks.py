"""Masks against a definition that goes pixel by pixel, and every kind of file that masks come in."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kanoclip.runtime.errors import DataError
from kanoclip.train.data.masks import HANDFUL, decode_mask, evaluation_mask, read_mask, training_mask

SIDE = st.integers(1, 40)
MASKS = arrays.arrays(bool, st.tuples(st.integers(1, 23), st.integers(1, 23)))


def write(path, values, *options):
    assert cv2.imwrite(str(path), values, options)
    return path


def covers(old, new, index):
    """Old positions that a new one overlaps, in exact arithmetic."""
    start, end = Fraction(index * old, new), Fraction((index + 1) * old, new)
    return [i for i in range(old) if i < end and i + 1 > start]


@given(MASKS, SIDE, SIDE)
def test_training_mask_is_true_where_any_anomalous_area_lies(mask, height, width):
    result = training_mask(mask, height, width)
    assert result.shape == (height, width) and result.dtype == bool and result.flags.c_contiguous
    rows = [covers(mask.shape[0], height, y) for y in range(height)]
    columns = [covers(mask.shape[1], width, x) for x in range(width)]
    wanted = [[bool(mask[np.ix_(ys, xs)].any()) for xs in columns] for ys in rows]
    assert result.tolist() == wanted


@given(MASKS, st.integers(1, 3), st.integers(1, 3))
def test_training_mask_equals_area_means_above_zero(mask, y, x):
    """Where OpenCV's own area mean is exact: at whole ratios."""
    mask = np.kron(mask, np.ones((y, x), bool))
    mask[0, 0] ^= True
    height, width = mask.shape[0] // y, mask.shape[1] // x
    mean = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    assert np.array_equal(training_mask(mask, height, width), mean > 0)


@given(st.integers(0, 1199), st.integers(0, 899))
def test_no_single_pixel_falls_out_of_the_training_mask(y, x):
    mask = np.zeros((1200, 900), bool)
    mask[y, x] = True
    result = training_mask(mask, 37, 53)
    assert result[y * 37 // 1200, x * 53 // 900] and result.sum() <= 4


@given(MASKS, SIDE, SIDE)
def test_evaluation_mask_takes_the_nearest_pixel(mask, height, width):
    result = evaluation_mask(mask, height, width)
    assert result.dtype == bool
    wanted = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    assert np.array_equal(result, wanted > 0)


@given(MASKS)
def test_same_size_changes_nothing(mask):
    assert np.array_equal(training_mask(mask, *mask.shape), mask)
    assert np.array_equal(evaluation_mask(mask, *mask.shape), mask)


@given(MASKS, SIDE, SIDE)
def test_neither_turns_the_mask(mask, height, width):
    for resized in (training_mask, evaluation_mask):
        assert np.array_equal(resized(mask[::-1], height, width).T, resized(mask[::-1].T, width, height))


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 255, 0], [0, 0, 255]], np.uint8),
        np.array([[0, 1, 0], [0, 0, 2]], np.uint8),  # VisA's label indices
        np.array([[0, 1, 0], [0, 0, 65535]], np.uint16),
        np.array([[[0, 0, 0], [1, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0], [0, 0, 9]]], np.uint8),
        np.array([[[0, 0, 0, 255], [0, 2, 0, 255], [0, 0, 0, 255]], [[0, 0, 0, 255], [0] * 4, [7] * 4]], np.uint8),
    ],
    ids=["binary", "labels", "16-bit", "faint colours", "alpha"],
)
def test_every_value_above_zero_is_anomalous(tmp_path, values):
    path = write(tmp_path / "mask.png", values)
    assert read_mask(path, (2, 3, 3)).tolist() == [[False, True, False], [False, False, True]]


def test_palette_png_keeps_its_labels(tmp_path):
    """Two pixels of the palette's colours black and (0, 0, 1), which as grey is 0."""
    import struct
    import zlib

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    path = tmp_path / "mask.png"
    header = struct.pack(">IIBBBBB", 2, 1, 8, 3, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"PLTE", bytes([0, 0, 0, 0, 0, 1]))
        + chunk(b"IDAT", zlib.compress(bytes([0, 0, 1])))
        + chunk(b"IEND", b"")
    )
    assert read_mask(path, (1, 2)).tolist() == [[False, True]]


@pytest.mark.parametrize("suffix", [".bmp", ".tif", ".PNG"])
def test_other_formats(tmp_path, suffix):
    path = write(tmp_path / f"mask{suffix}", np.array([[0, 255]], np.uint8))
    assert read_mask(path, (1, 2)).tolist() == [[False, True]]


def test_shades_count_from_half_of_the_largest(tmp_path):
    values = np.arange(HANDFUL + 1, dtype=np.uint8)[None] * 10
    decoded = decode_mask(write(tmp_path / "grey.png", values))
    assert decoded.shades == HANDFUL + 1
    assert decoded.pixels.tolist() == [[value >= 40 for value in values[0]]]
    few = decode_mask(write(tmp_path / "few.png", values[:, :HANDFUL]))
    assert few.pixels.tolist() == [[False] + [True] * (HANDFUL - 1)]


def test_jpeg_noise_does_not_grow_the_mask(tmp_path):
    truth = np.zeros((64, 64), np.uint8)
    cv2.circle(truth, (30, 34), 11, 255, -1)
    path = write(tmp_path / "mask.jpg", truth, cv2.IMWRITE_JPEG_QUALITY, 40)
    assert (cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0).sum() > 1.2 * (truth > 0).sum()
    assert (read_mask(path, truth.shape) != (truth > 0)).sum() < 0.05 * (truth > 0).sum()


def test_jpeg_with_few_shades_is_thresholded_too(tmp_path):
    values = np.zeros((16, 16), np.uint8)
    values[:8, :8] = 3
    values[8:, 8:] = 250
    decoded = decode_mask(write(tmp_path / "mask.jpg", values, cv2.IMWRITE_JPEG_QUALITY, 100))
    assert decoded.shades <= HANDFUL
    assert np.array_equal(decoded.pixels, values == 250)


@pytest.mark.parametrize("name", ["mask.png", "mask.jpg"])
def test_empty_mask_has_no_anomalous_pixel(tmp_path, name):
    assert not read_mask(write(tmp_path / name, np.zeros((8, 8), np.uint8)), (8, 8)).any()


def test_float_masks_may_hold_nan(tmp_path):
    path = write(tmp_path / "mask.tiff", np.array([[0, np.nan, 0.5]], np.float32))
    assert read_mask(path, (1, 3)).tolist() == [[False, False, True]]


@pytest.mark.parametrize("shape", [(3, 2), (2, 4), (4, 6)])
def test_another_size_is_refused_with_both_sizes(tmp_path, shape):
    path = write(tmp_path / "mask.png", np.zeros((2, 3), np.uint8))
    with pytest.raises(DataError) as caught:
        read_mask(path, shape)
    message = str(caught.value)
    assert str(path) in message and "3 x 2" in message and f"{shape[1]} x {shape[0]}" in message
    assert "\n" not in message


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file"), (b"", "empty"), (b"text", "not an image")])
def test_a_file_that_is_no_mask_is_named(tmp_path, content, reason):
    path = tmp_path / "mask.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        read_mask(path, (2, 3))
    assert str(path) in str(caught.value)
