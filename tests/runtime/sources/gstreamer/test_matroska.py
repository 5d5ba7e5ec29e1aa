"""The reader of raw images in Matroska: whole streams, cut ones and junk."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.sources.gstreamer.matroska import MatroskaReader, StreamCutError, StreamFormatError, Track

FAKE = runpy.run_path(str(Path(__file__).parents[3] / "support" / "fake_gst_launch.py"))


def reader_of(data):
    rest = memoryview(data)

    def fill(view):
        nonlocal rest
        count = min(len(view), len(rest))
        view[:count], rest = rest[:count], rest[count:]
        return count

    return MatroskaReader(fill)


def read_all(data):
    reader = reader_of(data)
    track, images = reader.read_track(), []
    while track is not None and (size := reader.next_size()) is not None:
        images.append(reader.read_image(size))
    return track, images


def expected(index, width, height):
    y, x = np.mgrid[:height, :width]
    return np.stack([np.full_like(x, index), x % 256, y % 256], -1).astype(np.uint8)


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize(("width", "height"), [(6, 4), (8, 3), (1, 1), (321, 2)])
def test_a_whole_stream_gives_every_image_without_the_padding_of_its_rows(group, width, height):
    track, images = read_all(FAKE["stream"](7, group, width=width, height=height))
    assert track == Track(width, height, 25.0)
    assert len(images) == 7
    for index, image in enumerate(images):
        assert (image.flags.c_contiguous and image.flags.owndata) or image.base is not None
        np.testing.assert_array_equal(image, expected(index, width, height))


def test_each_image_has_memory_of_its_own():
    _, images = read_all(FAKE["stream"](3, width=8, height=3))
    images[0][:] = 77
    np.testing.assert_array_equal(images[1], expected(1, 8, 3))


@given(st.data())
def test_a_cut_stream_never_gives_a_partial_image(data):
    whole = FAKE["stream"](4)
    cut = data.draw(st.integers(0, len(whole) - 1))
    reader = reader_of(whole[:cut])
    images = []
    try:
        if reader.read_track() is not None:
            while (size := reader.next_size()) is not None:
                images.append(reader.read_image(size))
    except StreamCutError:
        pass
    for index, image in enumerate(images):
        np.testing.assert_array_equal(image, expected(index, 6, 4))
    assert len(images) < 4 or cut == len(whole)


@given(st.binary(max_size=300), st.integers(0, 400))
def test_junk_is_refused_and_never_crashes(junk, position):
    whole = FAKE["stream"](2)
    for data in (junk, whole[:position] + junk + whole[position + len(junk) :]):
        try:
            _, images = read_all(data)
        except (StreamCutError, StreamFormatError):
            continue
        assert all(image.dtype == np.uint8 and image.ndim == 3 for image in images)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fourcc": b"RGB\x18"}, "instead of uncompressed BGR"),
        ({"codec": b"V_VP9"}, "V_VP9"),
        ({"tracks": 2}, "2 tracks"),
        ({"width": 0}, "images of 0x4"),
        ({"height": 40000}, "images of 6x40000"),
    ],
)
def test_another_kind_of_stream_is_refused_by_its_header(changes, message):
    with pytest.raises(StreamFormatError, match=message):
        read_all(FAKE["header"](**changes))


def test_an_image_of_another_size_is_refused():
    with pytest.raises(StreamFormatError, match="is no 6x4"):
        read_all(FAKE["header"]() + FAKE["cluster"]() + FAKE["block"](0, width=9))


def test_a_stream_without_a_rate_has_none():
    assert read_all(FAKE["header"](duration=0))[0] == Track(6, 4, None)
    assert read_all(b"") == (None, [])
