"""Copies among references: found, left out together, counted as one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from references import DIGEST, frames, references, unit

from kanoclip.runtime.detect.reference.append import append
from kanoclip.runtime.detect.reference.fit import References, centre_of, fit
from kanoclip.runtime.detect.reference.repeats import firsts_of, groups_of
from kanoclip.runtime.detect.reference.unlabelled import select

GRID = (8, 8)


def copies(which, base=None):
    """References of frames that are listed by number, several times."""
    refs = references(max(which) + 1) if base is None else base
    names = tuple(f"{n}-{i}.png" for n, i in enumerate(which))
    picked = np.array(which)
    return References.of(names, refs.descriptors[picked], refs.zero_shot[picked], GRID)


def groups(refs):
    return groups_of(refs.descriptors, centre_of(refs.descriptors), GRID).tolist()


@given(which=st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_copies_have_one_number_in_the_order_of_the_first(which):
    found = groups(copies(which))
    order = list(dict.fromkeys(which))
    assert found == [order.index(one) for one in which]
    assert firsts_of(np.array(found, np.int32)).tolist() == [which.index(one) for one in order]


def test_one_cell_that_differs_makes_another_frame():
    """A defect on a copy is no copy, however small it is."""
    cells = np.repeat(frames(1), 3, 0)
    cells[2, 0, 20] = unit(np.random.default_rng(0).standard_normal(16))
    assert groups(References.of(("a", "b", "c"), cells, np.zeros((3, 1, 32, 32), np.float32), GRID)) == [0, 0, 1]


def test_what_moves_slowly_is_one_group():
    step = 0.01 * np.random.default_rng(3).standard_normal((1, 1, 64, 16))
    cells = unit(np.concatenate([frames(1) + k * step for k in range(12)]))
    assert set(groups(References.of(tuple("abcdefghijkl"), cells, np.zeros((12, 1, 32, 32), np.float32), GRID))) == {0}


@pytest.mark.parametrize("count", [0, 1])
def test_few_frames(count):
    assert groups_of(frames(1)[:count].astype(np.float16), np.zeros(16, np.float32), GRID).tolist() == [0] * count


def test_copies_change_neither_scale_nor_thresholds():
    """20 frames of which 6 differ give what the 6 give: each is left out with its copies."""
    which = [0, 1, 2, 3, 4, 5] + [0, 1, 2, 3, 4, 5, 0] * 2
    alone = fit(copies(range(6)), descriptor_sha256=DIGEST, rows=384)
    again = fit(copies(which), descriptor_sha256=DIGEST, rows=384)
    assert again.counted.sum() == 6 and len(again.repeats) == 14
    assert np.sort(again.loo_scores[again.counted]) == pytest.approx(np.sort(alone.loo_scores), abs=0.02)
    # Drawn from more candidates, rows differ a little.
    assert again.fusion.gain == pytest.approx(alone.fusion.gain, rel=0.1)
    assert again.fusion.offset == pytest.approx(alone.fusion.offset, rel=0.1)


def test_only_copies_are_a_single_reference():
    one, five = (fit(copies([0] * n), descriptor_sha256=DIGEST, rows=64) for n in (1, 5))
    assert five.counted.tolist().count(True) == 1
    assert five.fusion.gain == pytest.approx(one.fusion.gain, rel=1e-3)


def test_an_appended_copy_does_not_count():
    refs = references(3)
    memory = fit(refs, descriptor_sha256=DIGEST, rows=1000)
    twice = append(memory, "again", refs.descriptors[1], refs.zero_shot[1], GRID, most_rows=1000)
    new = append(memory, "new", frames(1, seed=9)[0], refs.zero_shot[1], GRID, most_rows=1000)
    assert twice.counted.tolist() == [True, True, True, False] and new.counted.all()


def test_an_appended_copy_does_not_count_where_a_memory_is_full():
    """It has a few cells of each reference then: the same folder added twice would promise half of the rate."""
    refs = references(12)
    memory = fit(refs, descriptor_sha256=DIGEST, rows=96)
    for number in range(12):
        cells, zero = refs.descriptors[number], refs.zero_shot[number]
        memory = append(memory, f"again {number}", cells, zero, GRID, most_rows=96)
    assert memory.counted.tolist() == [True] * 12 + [False] * 12
    for number, new in enumerate(frames(12, seed=9)):
        memory = append(memory, f"new {number}", new, refs.zero_shot[number], GRID, most_rows=96)
    assert memory.counted[24:].all()


def test_a_defect_under_a_line_that_stands_still_is_left_out():
    """15 of 24 frames are the same defective one; as frames they are the majority, as parts one of ten."""
    cells = frames(10, seed=4)
    cells[0, 0, 20] = unit(np.random.default_rng(0).standard_normal(16))
    descriptors = cells[[0] * 15 + list(range(1, 10))].astype(np.float16)
    found = select(descriptors, GRID)
    assert found.frames.tolist() == [False] * 15 + [True] * 9
    assert not found.cells[:15].any() and found.peaks.shape == (24,)


def test_two_kinds_of_frames_have_a_vote_each():
    """Nothing is odd among two; but one frame against eleven copies is."""
    cells = np.repeat(frames(1), 12, 0)
    cells[7, 0, 20] = unit(np.random.default_rng(0).standard_normal(16))
    assert np.flatnonzero(~select(cells.astype(np.float16), GRID).frames).tolist() == [7]


def test_the_one_with_the_highest_score_stands_for_its_copies():
    refs = copies([0, 0, 1, 2])
    louder = refs.zero_shot.copy()
    louder[1] = 0.9
    memory = fit(replace(refs, zero_shot=louder), descriptor_sha256=DIGEST, rows=1000)
    assert memory.repeats == (0,)
