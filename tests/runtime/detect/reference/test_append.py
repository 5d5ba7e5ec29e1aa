"""One more frame: bounded, what is new gets in, what is not does not, and the cover stays."""

from __future__ import annotations

from time import thread_time

import numpy as np
import pytest
from references import DIGEST, frames, memory, unit

from kanoclip.runtime.detect.reference.append import MOST_NEW, append
from kanoclip.runtime.detect.reference.fit import References, fit
from kanoclip.runtime.detect.reference.fused import fused, nearest

ZERO = np.full((1, 32, 32), 0.1, np.float32)


def appended(one, cells, rows=64, name="new"):
    return append(one, name, cells, ZERO, (8, 8), most_rows=rows)


def test_a_frame_like_the_others_is_a_reference_more():
    old = memory(4, rows=256)
    new = frames(1, seed=31)[0]
    grown = appended(old, new, rows=256)
    assert grown.names == (*old.names, "new") and len(grown.loo_scores) == len(grown.loo_peaks) == 5
    _, (score,) = fused(new.astype(np.float16), ZERO, old.tensors(), (8, 8))
    assert grown.loo_scores[-1] == pytest.approx(score, abs=1e-6)  # out of sample: by the memory before
    assert grown.centre is old.centre and grown.fusion == old.fusion
    assert old.rows.shape == (256, 16) and len(old.names) == 4  # as it was


def test_what_is_new_gets_in_and_the_rows_stay_bounded():
    old = memory(4)
    new = frames(1, seed=31)[0]
    new[0, 20:24] = np.eye(16)[:4]
    grown = appended(old, new)
    assert len(grown.rows) == 64
    assert nearest(new[:, 20:24].astype(np.float16), grown.tensors()).max() < 1e-2
    assert nearest(new[:, 20:24].astype(np.float16), old.tensors()).min() > 0.1
    assert (grown.image_of == 4).sum() >= 4


def test_there_is_room():
    old = memory(1, rows=64)
    assert 64 < len(appended(old, frames(1, seed=31)[0], rows=1000).rows) <= 64 + MOST_NEW


def test_no_frame_takes_over():
    old = memory(4, grid=(16, 16), rows=200)
    other = unit(np.random.default_rng(5).standard_normal((1, 256, 16)))
    grown = append(old, "other", other, np.full((1, 32, 32), 0.1, np.float32), (16, 16), most_rows=200)
    assert (grown.image_of == 4).sum() <= MOST_NEW and len(grown.rows) == 200


def test_the_same_frame_twice_brings_nothing():
    new = frames(1, seed=31)[0]
    once = appended(memory(4, rows=1000), new, rows=1000)  # all of its cells, up to `MOST_NEW`
    twice = appended(once, new, rows=1000)
    assert np.array_equal(twice.rows, once.rows) and len(twice.names) == len(once.names) + 1


def test_many_appended_cover_as_a_fit_does():
    cells = frames(30, noise=0.1)
    zero = np.full((30, 1, 32, 32), 0.1, np.float32)
    whole = fit(References.of(tuple(map(str, range(30))), cells, zero, (8, 8)), descriptor_sha256=DIGEST, rows=128)
    grown = fit(References.of(("0", "1"), cells[:2], zero[:2], (8, 8)), descriptor_sha256=DIGEST, rows=128)
    for number in range(2, 30):
        grown = append(grown, str(number), cells[number], zero[number], (8, 8), most_rows=128)
    halves = cells[:, 0].astype(np.float16)
    assert nearest(halves, grown.tensors()).mean() < 1.25 * nearest(halves, whole.tensors()).mean()


@pytest.mark.nightly
def test_it_is_quick():
    one = memory(4, rows=1024, grid=(32, 32), channels=384, size=(256, 256))
    new, zero = frames(1, (32, 32), 384, seed=9)[0], np.full((1, 256, 256), 0.1, np.float32)
    one.tensors()
    spent = []
    for _ in range(5):
        start = thread_time()
        append(one, "new", new, zero, (32, 32), most_rows=1024)
        spent.append(thread_time() - start)
    assert min(spent) < 0.05
