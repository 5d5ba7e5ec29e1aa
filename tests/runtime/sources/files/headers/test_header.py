"""Sizes from headers, against what decoding says."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.sources.files import images
from kanoclip.runtime.sources.files.headers.header import image_size
from kanoclip.runtime.sources.files.headers.orientation import orientation_of
from kanoclip.runtime.sources.files.samples import samples_of
from kanoclip.train.data.images import read_image
from kanoclip.train.data.masks import decode_mask


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tiff", "webp", "pgm", "ppm", "gif", "jp2"])
@given(height=st.integers(1, 300), width=st.integers(1, 300), grey=st.booleans())
def test_size_is_the_decoded_image_s(tmp_path_factory, suffix, height, width, grey):
    path = tmp_path_factory.mktemp("headers", numbered=True) / f"a.{suffix}"
    grey = suffix == "pgm" or (grey and suffix not in ("ppm", "gif"))
    written = cv2.imwrite(str(path), np.zeros((height, width) if grey else (height, width, 3), np.uint8))
    if written:
        assert image_size(path) == (height, width) == read_image(path).shape[:2]
    else:
        assert suffix in ("gif", "jp2")  # which not every OpenCV writes


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


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tiff", "webp", "ppm"])
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


def test_formats_without_a_known_header_are_not_given_to_a_decoder(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 10 +X 40\n")
    assert image_size(path) is None
    assert "not an image" in images.read_image(path)


UPRIGHT = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: np.rot90(image, 1),
}


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "JPEG"])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_which_way_is_up_does_not_depend_on_the_format(tmp_path, form, alpha, orientation):
    """TIFF's decoder turns by itself, and OpenCV leaves images with alpha as they lie."""
    image = np.zeros((30, 60, 3), np.uint8)
    image[:15, :30] = (0, 0, 255)
    path = tmp_path / "a"
    drawn = PIL.Image.fromarray(image[:, :, ::-1])
    tags = PIL.Image.Exif()
    tags[0x112] = orientation
    if alpha and form != "JPEG":
        drawn.putalpha(255)
    more = {"tiffinfo": {274: orientation}} if form == "TIFF" else {"exif": tags.tobytes()}
    drawn.save(path, form, **more, **({"lossless": True} if form == "WEBP" else {}))
    upright = UPRIGHT[orientation](image)
    read = read_image(path)
    assert image_size(path) == read.shape[:2] == upright.shape[:2]
    assert np.abs(read.astype(int) - upright).mean() <= (10 if form == "JPEG" else 0)
    mask = decode_mask(path)
    assert mask.pixels.shape == upright.shape[:2]
    if form != "JPEG":
        assert (mask.pixels == (upright[:, :, 2] > 0)).all()


@pytest.mark.parametrize(
    "data",
    [
        b"P5" + b" " * 4000 + b"x",
        b"P5" + b"#\n" * 2000 + b"x",
        b"\xff\xd8" + b"\xff" * 60_000_000,
        b"\xff\xd8" + b"\xff\xe0\0\2" * 15_000_000,
        b"\x89PNG\r\n\x1a\n" + bytes(8) + b"IHDR" + bytes(60_000_000) + b"eXIf",
        b"RIFF\0\0\0\0WEBPVP8X" + bytes(60_000_000),
        b"II*\0\x08\0\0\0\xff\xff" + bytes(12 * 65535) + b"\x08\0\0\0",
        b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0" + b"\xff" * 8 + bytes(100),
    ],
    ids=lambda data: repr(data[:12]),
)
@pytest.mark.timeout(60)  # what they took before: minutes, or for ever
def test_no_header_takes_long(tmp_path, data):
    path = tmp_path / "a.png"
    path.write_bytes(data)
    assert isinstance(images.read_image(path), str)
    samples_of(data)
    orientation_of(data)
