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


@pytest.mark.parametrize("most", [15, 100, 256, 1000, 40_000])
@pytest.mark.parametrize("kind", [b"P5", b"P6", b"P2"])
def test_white_that_is_no_whole_number_of_bits(kind, most):
    values = np.repeat(GREY.astype(int) * most // 255, 3 if kind == b"P6" else 1)
    text = b" ".join(b"%d" % one for one in values) + b"\n"
    raw = text if kind == b"P2" else values.astype(">u2" if most > 255 else "u1").tobytes()
    image = decode(kind + b"\n16 16\n%d\n" % most + raw)
    assert np.abs(image[:, :, 0].astype(int) - GREY).max() <= 1 + 255 / min(most, 255)


def tiff(values, bits, white_is_zero, form=1):
    content = values.tobytes()
    tags = {256: 16, 257: 16, 258: bits, 259: 1, 262: 1 - white_is_zero, 273: 134, 277: 1, 278: 16, 279: len(content)}
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in {**tags, 339: form}.items())
    return struct.pack("<2sHIH", b"II", 42, 8, 10) + body + bytes(4) + content


def test_white_is_zero_in_8_and_in_16_bits():
    """OpenCV minds it in 8 bits alone."""
    assert (decode(tiff(255 - GREY, 8, True))[:, :, 0] == GREY).all()
    assert (decode(tiff(65535 - spread(16), 16, True))[:, :, 0] == GREY).all()
    assert (decode(tiff(4095 - spread(12), 16, True))[:, :, 0] == GREY).all()
    assert (decode(tiff(spread(16), 16, False))[:, :, 0] == GREY).all()


def test_samples_with_a_sign_are_refused():
    assert "sign" in decode(tiff(GREY, 8, False, form=2))


def test_a_brighter_image_than_its_folders_first_is_said(tmp_path, caplog):
    for n in range(8):
        cv2.imwrite(str(tmp_path / f"{n}.png"), spread(10))
    cv2.imwrite(str(tmp_path / "last.png"), spread(12))
    assert (read_image(tmp_path / "last.png")[:, :, 0] == GREY).all()
    assert "an image of 12 bits beside its folder's first ones of 10 bits" in caplog.text
    assert "--bit-depth 12 takes all alike" in caplog.text


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


@pytest.mark.parametrize("suffix", [".jp2", ".bmp"])
def test_what_is_transparent_elsewhere_is_white(suffix):
    image = np.zeros((64, 64, 4), np.uint8)
    image[:, :32] = [10, 20, 30, 255]
    image[:, 32:] = [99, 1, 250, 0]
    shown = decode(encoded(image, suffix))
    assert np.abs(shown[:, :28].astype(int) - [10, 20, 30]).max() < 9
    assert (shown[:, 36:] > 246).all()
    if suffix == ".bmp":  # a fourth byte that means nothing
        raw = bytearray(encoded(image, suffix))
        raw[66:70] = bytes(4)
        assert (decode(bytes(raw))[:, 32:] == [99, 1, 250]).all()


def test_images_one_after_the_other_in_a_pnm(caplog):
    one = b"P5 16 16 255\n" + GREY.tobytes()
    assert (decode(one + b"\n")[:, :, 0] == GREY).all() and not caplog.text
    decode(one + one)
    assert "only the first of its 2 pages is scored" in caplog.text


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_pages_are_counted(kind, tmp_path, caplog):
    pil = pytest.importorskip("PIL.Image")
    pages = [pil.new("RGB", (20, 20), (40 * n, 0, 0)) for n in range(4)]
    path = tmp_path / ("pages.png" if kind == "GIF" else f"pages.{kind.lower()}")
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
