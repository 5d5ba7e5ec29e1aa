"""Samples of more than 8 bits, alpha and pages, from files written by several programs."""

from __future__ import annotations

import logging
import struct
import zlib

import cv2
import numpy as np
import pytest

from kanoclip.runtime.sources.files import decode as module
from kanoclip.runtime.sources.files.decode import decode
from kanoclip.runtime.sources.files.images import read_image, read_reduced
from kanoclip.runtime.sources.files.samples import Samples, samples_of

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.fixture(autouse=True)
def fresh():
    module._depths.clear()
    module._warned.clear()


def encoded(image, suffix=".png"):
    done, raw = cv2.imencode(suffix, image)
    if not done:
        pytest.skip(f"this OpenCV writes no {suffix} of that kind")
    return raw.tobytes()


def spread(bits, image=GREY):
    return image.astype(np.uint16) << (bits - 8)


def with_chunk(png, kind, content):
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return png[:33] + chunk + png[33:]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm", ".jp2"])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_each_depth_by_its_range(bits, suffix):
    image = decode(encoded(spread(bits), suffix))
    assert image.dtype == np.uint8 and image.shape == (16, 16, 3)
    tolerance = 3 if suffix == ".jp2" else 0  # lossy
    assert np.abs(image[:, :, 1].astype(int) - GREY).max() <= tolerance


def test_a_dark_image_is_as_dark_as_its_folders_are_bright(tmp_path, caplog):
    cv2.imwrite(str(tmp_path / "a.png"), spread(12))
    cv2.imwrite(str(tmp_path / "dark.png"), spread(12, GREY // 8))
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            assert read_image(tmp_path / "dark.png").max() == 31
    assert [r.message for r in caplog.records] == [f"{tmp_path}: images of 12 bits, by the range of the first 8"]


def test_a_stated_depth_comes_first():
    dark = with_chunk(encoded(spread(12, GREY // 8)), b"sBIT", b"\x0c")
    assert decode(dark).max() == 31
    # The standard would have the samples spread over all 16 bits: then they are.
    assert (decode(with_chunk(encoded(spread(16)), b"sBIT", b"\x0c"))[:, :, 0] == GREY).all()
    plain = b"P5\n# of 12 bits\n16 16\n4095\n" + spread(12, GREY // 8).astype(">u2").tobytes()
    assert samples_of(plain) == Samples(16, 12)
    assert decode(plain).max() == 31


def test_colours_of_16_bits(tmp_path):
    image = cv2.merge([GREY, GREY[::-1], GREY.T])
    assert (decode(encoded(spread(12, image))) == image).all()


@pytest.mark.parametrize("image", [np.ones((4, 4), np.float32), np.ones((4, 4, 3), np.float64)])
def test_float_is_refused_with_a_reason(image):
    assert "float" in decode(encoded(image, ".tif"))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
@pytest.mark.parametrize("scale", [1, 257])
def test_what_is_transparent_is_white(suffix, scale):
    if scale > 1 and suffix == ".webp":
        pytest.skip("WebP has 8 bits")
    image = np.zeros((8, 8, 4), np.uint16 if scale > 1 else np.uint8)
    image[:, :4] = [10, 20, 30, 255]
    image[:, 4:] = [99, 1, 250, 0]
    raw = encoded(image * image.dtype.type(scale), suffix)
    if suffix == ".webp":
        raw = cv2.imencode(suffix, image, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    shown = decode(raw)
    assert (shown[:, :4] == [10, 20, 30]).all()
    assert (shown[:, 4:] == 255).all()


def test_a_palette_with_a_transparent_colour():
    pil = pytest.importorskip("PIL.Image")
    import io

    image, file = pil.new("P", (4, 4), 1), io.BytesIO()
    image.putpalette([0, 0, 0, 200, 0, 0])
    image.save(file, "PNG", transparency=1)
    assert (decode(file.getvalue()) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_pages_are_counted(kind, tmp_path, caplog):
    pil = pytest.importorskip("PIL.Image")
    pages = [pil.new("RGB", (20, 20), (40 * n, 0, 0)) for n in range(4)]
    path = tmp_path / f"pages.{kind.lower()}"
    pages[0].save(path, kind, save_all=True, append_images=pages[1:])
    assert read_image(path)[0, 0].max() == 0
    assert [r.message for r in caplog.records] == [f"{path}: only the first of its 4 pages is scored"]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".pgm", ".jp2"])
def test_a_damaged_header_raises_nothing(suffix):
    raw = encoded(spread(12) if suffix != ".webp" else GREY, suffix)
    rng = np.random.default_rng(0)
    for end in range(0, min(len(raw), 200), 3):
        samples_of(raw[:end])
        spoilt = bytearray(raw)
        for place in rng.integers(4, min(len(raw), 200), 3):
            spoilt[place] = rng.integers(256)
        samples_of(bytes(spoilt))


def test_plain_images_are_as_opencv_has_them(tmp_path):
    image = cv2.merge([GREY, GREY[::-1], GREY.T])
    for suffix in (".png", ".jpg", ".bmp", ".tif", ".webp", ".ppm"):
        path = tmp_path / f"x{suffix}"
        cv2.imwrite(str(path), image)
        assert (read_image(path) == cv2.imread(str(path))).all()
        assert (read_reduced(path, 8, 8)[0] == cv2.imread(str(path))).all()
