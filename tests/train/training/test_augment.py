"""Augmentation: the defect stays where its mask is, and the label as it was."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.train.training.augment import BRIGHTNESS, CONTRAST, augment

SEEDS = st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 10**6))


@given(SEEDS, st.integers(1, 12), st.integers(1, 12))
def test_image_and_mask_move_together(seed, height, width):
    """Each pixel is its own grey value, far enough apart to be told after any contrast and brightness."""
    mask = (np.random.default_rng(1).random((height, width)) < 0.4).astype(np.uint8)
    frame = np.repeat(np.where(mask, 220, 30).astype(np.uint8)[:, :, None], 3, axis=2)
    changed, moved = augment(frame, mask, seed)
    assert changed.shape == frame.shape and moved.shape == mask.shape and moved.sum() == mask.sum()
    assert changed.dtype == moved.dtype == np.uint8
    assert changed.flags.c_contiguous and moved.flags.c_contiguous
    assert ((changed[:, :, 0] > 128) == (moved > 0)).all()


@given(SEEDS)
def test_the_same_seed_gives_the_same_and_leaves_the_input(seed):
    frame = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    mask = (frame[:, :, 0] > 128).astype(np.uint8)
    before = frame.copy(), mask.copy()
    one, two = augment(frame, mask, seed), augment(frame, mask, seed)
    assert (one[0] == two[0]).all() and (one[1] == two[1]).all()
    assert (frame == before[0]).all() and (mask == before[1]).all()
    assert not np.shares_memory(one[0], frame)


def test_all_eight_positions_come_of_a_square_and_four_of_others():
    for shape, count in (((4, 4), 8), ((3, 5), 4)):
        mask = np.zeros(shape, np.uint8)
        mask[0, 1] = 1
        frame = np.zeros((*shape, 3), np.uint8)
        found = {augment(frame, mask, (0, 0, index))[1].tobytes() for index in range(400)}
        assert len(found) == count


@pytest.mark.parametrize("value", [0, 255])
def test_the_ends_of_the_scale_do_not_wrap_around(value):
    frame, mask = np.full((4, 4, 3), value, np.uint8), np.zeros((4, 4), np.uint8)
    means = [augment(frame, mask, (0, 0, index))[0].mean() for index in range(200)]
    furthest = 128 - 128 * CONTRAST[0] + BRIGHTNESS + 1
    assert all(abs(mean - value) <= furthest for mean in means) and len(set(means)) > 20
