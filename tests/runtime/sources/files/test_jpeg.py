"""JPEG files of all kinds: the same pixels as OpenCV's, and word of each damage."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

from kanoclip.runtime.sources.files import jpeg
from kanoclip.runtime.sources.files.jpeg import decode_jpeg

simplejpeg = pytest.importorskip("simplejpeg")


def encoded(height=123, width=77, *, grey=False, **options):
    shape = (9, 6) if grey else (9, 6, 3)
    image = cv2.resize(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), (width, height))
    given = [number for name, value in options.items() for number in (getattr(cv2, f"IMWRITE_JPEG_{name}"), value)]
    return cv2.imencode(".jpg", image, given)[1].tobytes()


def turned(raw, orientation, order=">"):
    mark = b"MM\0*" if order == ">" else b"II*\0"
    tiff = mark + struct.pack(f"{order}IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + tiff
    return raw[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + raw[2:]


def by_opencv(raw, scale=1):
    return cv2.imdecode(np.frombuffer(raw, np.uint8), jpeg._SCALES[scale])


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(123, 77), (64, 64), (1, 1), (17, 400), (333, 9)])
@pytest.mark.parametrize("options", [{}, {"grey": True}, {"PROGRESSIVE": 1}, {"RST_INTERVAL": 3}, {"QUALITY": 20}])
def test_the_pixels_are_opencvs(size, options, scale):
    raw = encoded(*size, **options)
    image, damage = decode_jpeg(raw, scale)
    np.testing.assert_array_equal(image, by_opencv(raw, scale))
    assert damage == ""


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(10))
def test_each_orientation(orientation, order):
    raw = turned(encoded(), orientation, order)
    image, _ = decode_jpeg(raw, 1)
    np.testing.assert_array_equal(image, by_opencv(raw))
    assert image.flags.c_contiguous


def test_colours_of_a_printer(tmp_path):
    pil = pytest.importorskip("PIL.Image")
    path = tmp_path / "x.jpg"
    pil.new("CMYK", (40, 30), (10, 200, 30, 40)).save(path)
    image, damage = decode_jpeg(path.read_bytes(), 1)
    np.testing.assert_array_equal(image, by_opencv(path.read_bytes()))
    assert damage == ""
    raw = path.read_bytes()
    assert decode_jpeg(raw[: len(raw) - 20] + b"\xff\xd9", 1)[1]


@pytest.mark.parametrize("options", [{}, {"PROGRESSIVE": 1}, {"RST_INTERVAL": 3}, {"grey": True}])
def test_what_lacks_a_part_is_damaged(options):
    raw = encoded(200, 300, **options)
    for part in (0.5, 0.7, 0.9):
        image, damage = decode_jpeg(raw[: int(part * len(raw))] + b"\xff\xd9", 1)
        assert damage or image is None, part


def test_bits_that_fell_over_raise_nothing():
    raw, rng = encoded(200, 300), np.random.default_rng(1)
    seen = 0
    for _ in range(200):
        spoilt = bytearray(raw)
        spoilt[rng.integers(2, len(raw))] ^= 1 << rng.integers(8)
        image, damage = decode_jpeg(bytes(spoilt), 1)
        seen += bool(damage) or image is None
    assert seen > 5  # a bit in a coefficient is a JPEG like any other


def test_without_simplejpeg_opencv_decodes(monkeypatch):
    raw = turned(encoded(), 6)
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    image, damage = decode_jpeg(raw, 2)
    np.testing.assert_array_equal(image, by_opencv(raw, 2))
    assert damage == ""


@pytest.mark.skipif(jpeg.simplejpeg is None, reason="without simplejpeg damage goes unseen")
@pytest.mark.parametrize("marker", [b"\xff\x9c", b"\xff\x02", b"\xff\xd8\xff\xd8", b"\xff\xc3\0\x08\x08\0\x10\0\x10\0"])
def test_markers_in_the_midst_of_the_data_are_damage(marker):
    """libjpeg calls them unsupported, and OpenCV fills up the rest."""
    raw = encoded()
    spoilt = raw[: len(raw) // 2] + marker + raw[len(raw) // 2 :]
    _, damage = decode_jpeg(spoilt, 1)
    assert damage
