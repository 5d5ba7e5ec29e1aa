"""Sizes from headers, against what decoding says."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.sources.files.headers import image_size
from kanoclip.train.data.images import read_image


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
@given(height=st.integers(1, 300), width=st.integers(1, 300), grey=st.booleans())
def test_size_is_the_decoded_image_s(tmp_path_factory, suffix, height, width, grey):
    path = tmp_path_factory.mktemp("headers", numbered=True) / f"a.{suffix}"
    cv2.imwrite(str(path), np.zeros((height, width) if grey else (height, width, 3), np.uint8))
    assert image_size(path) == (height, width) == read_image(path).shape[:2]


def exif(orientation, order):
    tag = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    other = struct.pack(f"{order}HHIHH", 0x0100, 3, 1, 7, 0)
    head = b"II" if order == "<" else b"MM"
    tiff = head + struct.pack(f"{order}HIH", 42, 8, 2) + other + tag + bytes(4)
    body = b"Exif\0\0" + tiff
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_jpeg_turned_by_exif(tmp_path, orientation, order):
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), np.zeros((10, 40, 3), np.uint8))
    raw = path.read_bytes()
    path.write_bytes(raw[:2] + exif(orientation, order) + b"\xff" + raw[2:])
    assert image_size(path) == read_image(path).shape[:2]


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_a_damaged_header_tells_nothing(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), np.zeros((10, 40, 3), np.uint8))
    raw = path.read_bytes()
    for length in range(min(len(raw), 400)):
        path.write_bytes(raw[:length])
        assert image_size(path) in (None, (10, 40))
    assert image_size(tmp_path / "gone") is None


@given(
    st.binary(max_size=60),
    st.sampled_from([b"", b"\xff\xd8", b"BM", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe1\0\x30Exif\0\0"]),
)
def test_any_bytes_give_an_answer(tmp_path_factory, body, start):
    path = tmp_path_factory.mktemp("headers", numbered=True) / "a.png"
    path.write_bytes(start + body)
    size = image_size(path)
    assert size is None or min(size) > 0


def test_other_formats_are_left_to_the_decoder(tmp_path):
    path = tmp_path / "a.tiff"
    cv2.imwrite(str(path), np.zeros((10, 40, 3), np.uint8))
    assert image_size(path) is None
