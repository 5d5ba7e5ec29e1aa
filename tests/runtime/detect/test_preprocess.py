"""From a camera frame to the graph's input."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.detect.preprocess import check_frame, resize
from kanoclip.runtime.errors import FrameError

SIDE = st.one_of(st.integers(1, 8), st.integers(1, 300))
SIZES = st.tuples(SIDE, SIDE)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def scene(height, width):
    """Something like a photograph: shapes at every scale, light fall-off and a little noise."""
    random = np.random.default_rng(1)
    image = np.full((height, width, 3), 90, np.uint8)
    for _ in range(400):
        centre = (int(random.integers(width)), int(random.integers(height)))
        colour = [int(c) for c in random.integers(0, 256, 3)]
        cv2.circle(image, centre, int(random.integers(2, height // 6)), colour, -1, cv2.LINE_AA)
    light = np.linspace(0.6, 1, width, dtype=np.float32)[None, :, None]
    return np.clip(image * light + random.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


@given(SIZES, SIZES, st.tuples(*[st.integers(0, 255)] * 3))
def test_a_constant_stays_constant_at_any_size(source, target, colour):
    frame = np.empty((*source, 3), np.uint8)
    frame[:] = colour
    result = resize(frame, *target)
    assert result.shape == (*target, 3) and result.dtype == np.uint8
    assert result.flags.c_contiguous
    assert (result == np.array(colour, np.uint8)).all()


@pytest.mark.parametrize(
    ("source", "target"),
    [((1, 1), (224, 224)), ((1, 4000), (224, 224)), ((4000, 1), (224, 224)), ((4000, 1), (1, 1)),
     ((3000, 2), (32, 48)), ((447, 448), (224, 224)), ((448, 447), (224, 224)), ((2160, 3840), (336, 336))],
)  # fmt: skip
def test_extreme_aspects(source, target):
    result = resize(noise(*source), *target)
    assert result.shape == (*target, 3)
    assert 100 < result.mean() < 155 or source == (1, 1)


@given(st.integers(0, 2**32 - 1), st.tuples(st.integers(24, 200), st.integers(24, 200)), st.integers(2, 9))
def test_the_mean_is_preserved_when_shrinking_by_whole_factors(seed, target, factor):
    frame = noise(target[0] * factor, target[1] * factor, seed)
    result = resize(frame, *target)
    assert np.abs(result.mean((0, 1)) - frame.mean((0, 1))).max() < 1


@pytest.mark.parametrize("size", [(1080, 1920), (720, 1280), (481, 641), (2160, 3840), (1001, 999)])
def test_the_mean_of_a_scene_is_preserved(size):
    frame = scene(*size)
    assert np.abs(resize(frame, 224, 224).mean((0, 1)) - frame.mean((0, 1))).max() < 1


@pytest.mark.parametrize("source", [(225, 225), (300, 400), (447, 447), (224, 300), (447, 225), (447, 3000)])
def test_equals_one_area_pass_below_twice_the_size(source):
    frame = noise(*source)
    np.testing.assert_array_equal(resize(frame, 224, 224), cv2.resize(frame, (224, 224), interpolation=cv2.INTER_AREA))


def test_from_twice_the_size_it_halves_first():
    frame = noise(448, 896)
    half = cv2.resize(frame, (448, 224), interpolation=cv2.INTER_AREA)
    assert np.abs(half - frame.reshape(224, 2, 448, 2, 3).mean((1, 3))).max() <= 0.75
    expected = cv2.resize(half, (224, 224), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(resize(frame, 224, 224), expected)


def test_grows_linearly():
    frame = noise(50, 60)
    np.testing.assert_array_equal(
        resize(frame, 224, 224), cv2.resize(frame, (224, 224), interpolation=cv2.INTER_LINEAR)
    )


def test_each_axis_by_its_own_rule():
    """A flat strip: its width is averaged, its height interpolated."""
    frame = noise(10, 400)
    narrow = cv2.resize(frame, (224, 10), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(
        resize(frame, 224, 224), cv2.resize(narrow, (224, 224), interpolation=cv2.INTER_LINEAR)
    )


@given(SIZES)
def test_identity_when_the_size_fits(size):
    frame = noise(*size)
    assert resize(frame, *size) is frame


@pytest.mark.parametrize("size", [(1080, 1920), (720, 1280), (2160, 3840)])
def test_close_to_one_area_pass(size):
    frame = scene(*size)
    once = cv2.resize(frame, (224, 224), interpolation=cv2.INTER_AREA)
    assert np.abs(resize(frame, 224, 224).astype(int) - once).mean() < 1.5


def test_height_and_width_are_not_mixed_up():
    frame = np.zeros((100, 100, 3), np.uint8)
    frame[:50] = 255
    result = resize(frame, 20, 40)
    assert result.shape == (20, 40, 3)
    assert (result[:9] == 255).all() and (result[11:] == 0).all()


@pytest.mark.parametrize("size", [(32, 32), (20, 20), (64, 64), (200, 100)])
def test_views_are_taken_as_they_look(size):
    """RGB to BGR by [..., ::-1], crops and mirror images have strides of their own."""
    frame = noise(2 * size[0], size[1] + 3)[::-2, 3:, ::-1]
    assert not frame.flags.c_contiguous
    result = resize(check_frame(frame), 32, 32)
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, resize(frame.copy(), 32, 32))


def test_the_frame_is_not_written_to():
    frame = noise(100, 100)
    before = frame.copy()
    frame.flags.writeable = False
    resize(frame, 32, 32)
    resize(frame, 200, 32)
    np.testing.assert_array_equal(frame, before)


def test_good_frames_pass_as_they_are():
    for frame in (noise(1, 1), noise(7, 5), noise(8, 8)[:, ::-1]):
        assert check_frame(frame) is frame


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (None, ["NoneType", "numpy array", "uint8"]),
        ([[1, 2]], ["list", "numpy array"]),
        ("x.png", ["str", "numpy array"]),
        (np.zeros((4, 4, 3), np.float32), ["float32", "uint8"]),
        (np.zeros((4, 4, 3), np.uint16), ["uint16", "uint8"]),
        (np.zeros((4, 4, 3), bool), ["bool", "uint8"]),
        (np.zeros((4, 5), np.uint8), ["[4, 5]", "[height, width, 3]", "COLOR_GRAY2BGR"]),
        (np.zeros((4, 5, 1), np.uint8), ["[4, 5, 1]", "COLOR_GRAY2BGR"]),
        (np.zeros((4, 5, 4), np.uint8), ["[4, 5, 4]", "COLOR_BGRA2BGR"]),
        (np.zeros((3, 4, 5), np.uint8), ["[3, 4, 5]", "[height, width, 3]"]),
        (np.zeros((1, 4, 5, 3), np.uint8), ["[1, 4, 5, 3]"]),
        (np.zeros(3, np.uint8), ["[3]"]),
        (np.zeros((), np.uint8), ["[]"]),
        (np.zeros((0, 5, 3), np.uint8), ["[0, 5, 3]", "empty"]),
        (np.zeros((5, 0, 3), np.uint8), ["empty"]),
        (np.zeros((5, 5, 0), np.uint8), ["[5, 5, 0]"]),
    ],
    ids=lambda value: str(getattr(value, "shape", ""))[:12],
)
def test_what_is_no_frame(frame, words):
    with pytest.raises(FrameError) as caught:
        check_frame(frame)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message
