"""What states more pixels than wanted is never given to a decoder, whatever its format."""

from __future__ import annotations

import os
import struct
import zlib

import cv2
import numpy as np
import pytest

from kanoclip.runtime.errors import DataError, SourceError
from kanoclip.runtime.ops.score.places import read_bytes
from kanoclip.runtime.sources.files import decode as decoding
from kanoclip.runtime.sources.files import jpeg as jpeg_module
from kanoclip.runtime.sources.files.images import ImageSource, read_image, read_reduced
from kanoclip.runtime.sources.files.reading import MAX_PIXELS, Reading
from kanoclip.runtime.sources.files.video import VideoSource
from kanoclip.train.data.masks import decode_mask, read_mask


def small(suffix, side=8):
    done, raw = cv2.imencode(suffix, np.full((side, side, 3), 200, np.uint8))
    assert done
    return raw.tobytes()


def patched(raw, place, form, *values):
    return raw[:place] + struct.pack(form, *values) + raw[place + struct.calcsize(form) :]


def jpeg():
    raw = small(".jpg")
    return patched(raw, raw.index(b"\xff\xc0") + 5, ">HH", 60000, 60000)


def tiff(order="<", big=False):
    """Only a directory: 60000 x 60000, 8 bits grey."""
    tags = {256: 60000, 257: 60000, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 60000, 279: 1}
    if big:
        head = struct.pack(f"{order}2sHHHQ", b"II" if order == "<" else b"MM", 43, 8, 0, 16)
        body = b"".join(struct.pack(f"{order}HHQQ", tag, 16, 1, value) for tag, value in tags.items())
        return head + struct.pack(f"{order}Q", len(tags)) + body + bytes(8)
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8)
    body = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items())
    return head + struct.pack(f"{order}H", len(tags)) + body + bytes(4)


def large_tiles():
    """8 x 8 pixels in a tile of 60000 x 60000."""
    tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 277: 1, 322: 60000, 323: 60000, 324: 8, 325: 1}
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + body + bytes(4)


def webp_canvas():
    raw = small(".webp")
    extended = b"VP8X" + struct.pack("<IB3x", 10, 0) + (16382).to_bytes(3, "little") * 2
    body = b"WEBP" + extended + raw[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jp2():
    raw = small(".jp2", 64)
    place = raw.index(b"\xff\x4f\xff\x51") + 8  # the box round it still states 64 x 64
    return patched(raw, place, ">8I", 60000, 60000, 0, 0, 60000, 60000, 0, 0)


BOMBS = {
    "png": lambda: patched(small(".png"), 16, ">II", 30000, 30000),
    "jpg": jpeg,
    "bmp": lambda: patched(small(".bmp"), 18, "<ii", 30000, -30000),
    "tif": tiff,
    "tiff": lambda: tiff(">"),
    "big.tif": lambda: tiff(big=True),
    "big.tiff": lambda: tiff(">", big=True),
    "tiles.tif": large_tiles,
    "webp": webp_canvas,
    "ppm": lambda: b"P6\n# a\n30000\n30000 255\n" + bytes(100),
    "pgm": lambda: b"P5 30000 30000 65535\n" + bytes(100),
    "gif.png": lambda: b"GIF89a" + struct.pack("<HH", 60000, 60000) + bytes(60),
    "jp2": jp2,
}


def png_of(bits, colour):
    return patched(small(".png"), 16, ">IIBB", 8000, 8000, bits, colour)


@pytest.mark.parametrize(
    ("raw", "each"),
    [
        (png_of(8, 2), None),
        (png_of(16, 0), 6),
        (png_of(16, 6), 8),
        (patched(jpeg(), jpeg().index(b"\xff\xc0"), ">HHBHH", 0xFFC0, 17, 8, 8000, 8000), None),
        (patched(jpeg(), jpeg().index(b"\xff\xc0"), ">HHBHH", 0xFFC2, 17, 8, 8000, 8000), 6),
        (patched(small(".bmp"), 18, "<ii", 8000, 8000), None),
        (patched(jp2(), jp2().index(b"\xff\x4f\xff\x51") + 8, ">8I", 8000, 8000, 0, 0, 8000, 8000, 0, 0), 15),
    ],
)
def test_bytes_count_not_pixels_alone(raw, each):
    """Of 16 bits, with transparency or in several scans, an image of fewer pixels took 3.9 GB."""
    refused = decoding.refusal(raw)
    if each is None:
        assert refused is None
    else:
        limit = MAX_PIXELS * 4 // each
        assert refused == (
            f"8000 x 8000: 64,000,000 pixels of {each} bytes each while it is decoded, over the limit of {limit:,} "
            "(--max-pixels)"
        )


@pytest.mark.parametrize("kind", [b"IDAT", b"tEXt", b"zzZz"])
def test_a_chunk_that_states_gigabytes(kind):
    """OpenCV took 3.9 GB for a PNG of 436 bytes."""
    raw = small(".png")
    spoilt = raw[:33] + struct.pack(">I", 0x7FFFFFFF) + kind + raw[33:]
    assert decoding.decode(spoilt) == "damaged (a chunk ends behind the file)"
    assert decoding.refusal(raw) is None


def test_the_files_own_bytes_count():
    raw = patched(small(".bmp"), 18, "<ii", 8000, 8000) + bytes(8000 * 8000 * 2)
    assert "64,000,000 pixels of 6 bytes" in decoding.refusal(raw)


@pytest.mark.parametrize("suffix", BOMBS)
def test_bombs_are_refused_by_their_headers(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(BOMBS[suffix]())

    def never(*_, **__):
        raise AssertionError("a decoder was asked")

    monkeypatch.setattr(decoding.cv2, "imdecode", never)
    if jpeg_module.simplejpeg is not None:
        monkeypatch.setattr(jpeg_module.simplejpeg, "decode_jpeg", never)
    for found in (read_image(path), read_reduced(path, 4, 4), decode_mask(path)):
        assert f"over the limit of {MAX_PIXELS:,} (--max-pixels)" in found
    with pytest.raises(DataError, match="--max-pixels"):
        read_mask(path, (8, 8))


def test_a_real_bomb_is_decoded_where_that_is_wanted(tmp_path):
    rows = zlib.compress(bytes((4000 + 1) * 4000), 9)

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 4000, 4000, 8, 0, 0, 0, 0)
    raw = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(raw)
    small_only = Reading(max_pixels=4000 * 4000 - 1)
    assert read_image(tmp_path / "a.png", small_only).startswith("4000 x 4000: 16,000,000 pixels, over")
    assert read_image(tmp_path / "a.png").shape == (4000, 4000, 3)
    (bad,) = ImageSource.from_file(tmp_path / "a.png", small_only).frames()
    assert "--max-pixels" in bad.reason


def test_videos_by_their_frames(tmp_path):
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(3):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    with pytest.raises(SourceError, match=r"a\.avi: 64 x 48: 3,072 pixels, over the limit of 3,071"):
        VideoSource(path, Reading(max_pixels=3071))
    source = VideoSource(path, Reading(max_pixels=3072))
    assert len(list(source.frames())) == 3
    source.close()


def test_no_device_pipe_or_hole_is_an_image(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "pipe.avi").symlink_to("pipe.png")
    with open(tmp_path / "hole.png", "wb") as file:
        file.truncate(1 << 40)
    for name in ("pipe.png", "zero.png"):
        for found in (read_image(tmp_path / name), decode_mask(tmp_path / name), read_bytes(str(tmp_path / name))):
            assert found == "it is no regular file"
    for found in (read_image(tmp_path / "hole.png"), read_bytes(str(tmp_path / "hole.png"))):
        assert "the file is over 407 MiB" in found
    assert decode_mask(tmp_path / "hole.png") == "the file is too large for a mask"
    with pytest.raises(SourceError, match="no regular file"):
        VideoSource(tmp_path / "pipe.avi")
