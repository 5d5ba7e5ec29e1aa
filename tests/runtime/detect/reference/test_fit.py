"""Fitting: the fusion's meaning, values out of sample that keep their promise, and references that are odd."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from references import DIGEST, frames, references

from kanoclip.runtime.detect.reference import fit as module
from kanoclip.runtime.detect.reference.fit import References, centre_of, fit, fusion_of, out_of_sample, scores_of
from kanoclip.runtime.detect.reference.fused import fused, logits, nearest
from kanoclip.runtime.detect.reference.smoothing import smooth
from kanoclip.runtime.engines.inputs import by_distance


def fitted(refs, rows=128, **options):
    return fit(refs, descriptor_sha256=DIGEST, rows=rows, **options)


def test_what_comes_out():
    refs = references(5)
    memory = fitted(refs)
    assert memory.rows.dtype == np.float16 and memory.rows.shape == (128, 16)
    assert memory.image_of.dtype == np.int32 and set(memory.image_of.tolist()) == set(range(5))
    own = refs.descriptors.reshape(5, -1, 16)
    for row, number in zip(memory.rows, memory.image_of, strict=True):
        assert (own[number] == row).all(1).any()  # a descriptor of the very frame
    assert memory.names == refs.names and memory.descriptor_sha256 == DIGEST
    assert memory.loo_scores.shape == memory.loo_peaks.shape == (5,)
    np.testing.assert_allclose(memory.centre, 0.5 * refs.descriptors.astype(np.float64).mean((0, 1, 2)), atol=1e-6)


def test_the_same_again():
    one, other = fitted(references(5)), fitted(references(5))
    assert np.array_equal(one.rows, other.rows) and np.array_equal(one.loo_scores, other.loo_scores)


def test_fewer_cells_than_rows():
    assert fitted(references(2), rows=1000).rows.shape == (128, 16)


def test_the_level_of_good_references_is_a_half():
    """Where the distance is at its quantile and the zero-shot map average, the fused map is 0.5."""
    rng = np.random.default_rng(0)
    distances = rng.uniform(0, 0.4, (4, 1, 32, 32)).astype(np.float32)
    zero = rng.uniform(0.1, 0.3, (4, 1, 32, 32)).astype(np.float32)
    fusion = fusion_of(distances, zero)
    q = np.quantile(distances, 0.999)
    assert fusion.gain * (q - fusion.offset) + fusion.shift == pytest.approx(0, abs=1e-5)
    assert fusion.offset == pytest.approx(distances.mean(), abs=1e-5)
    assert fusion.zero_offset == pytest.approx(logits(zero).mean(), abs=1e-5)
    spread = np.quantile(logits(zero), 0.999) - logits(zero).mean()
    assert fusion.zero_gain == pytest.approx(2 * 0.2 / (spread + 1), rel=1e-4)


def test_references_only():
    """Zero-shot maps then decide about nothing, neither in a score out of sample nor in one to come."""
    refs, other = references(6), references(6)
    rng = np.random.default_rng(0)
    other = replace(other, zero_shot=rng.uniform(0, 1, other.zero_shot.shape).astype(np.float32))
    one, two = (fit(given, descriptor_sha256="0" * 64, rows=64, references_only=True) for given in (refs, other))
    assert one.fusion.zero_gain == two.fusion.zero_gain == 0 and one.tensors().decides_alone
    np.testing.assert_array_equal(one.loo_scores, two.loo_scores)
    assert not fitted(refs).tensors().decides_alone
    for zero in (np.full((2, 32, 32), 0.1, np.float32), rng.uniform(0, 1, (2, 32, 32)).astype(np.float32)):
        maps, _ = fused(frames(2)[:, 0], zero, one.tensors(), (8, 8))
        cells = nearest(frames(2)[:, 0], one.tensors()).reshape(-1, 8, 8)
        np.testing.assert_allclose(maps, by_distance(smooth(cells, (32, 32)), one.tensors())[0], atol=1e-6)


def test_a_defect_stands_out():
    refs = references(6)
    memory = fitted(refs)
    new = frames(2, seed=50)
    new[1, 0, 27] = np.eye(16)[3]
    zero = np.full((2, 32, 32), 0.1, np.float32)
    maps, (good, bad) = fused(new[:, 0], zero, memory.tensors(), (8, 8))
    assert good < memory.loo_scores.max() + 0.2 and bad > 0.99
    assert np.unravel_index(maps[1].argmax(), (32, 32)) == (pytest.approx(13.5, abs=2), pytest.approx(13.5, abs=2))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_identical_references(count):
    """The spread is none: a good frame is far below 0.5 nevertheless, and all numbers are finite."""
    refs = references(count, noise=0)
    same = References.of(
        refs.names, np.repeat(frames(1), count, 0), np.full((count, 1, 32, 32), 0.1, np.float32), (8, 8)
    )
    memory = fitted(same)
    assert np.isfinite(memory.fusion.numbers()).all() and np.isfinite(memory.loo_scores).all()
    if count > 1:
        _, scores = fused(same.descriptors[:, 0], same.zero_shot[:, 0], memory.tensors(), (8, 8))
        assert scores.max() < 0.3


@pytest.mark.parametrize("count", [1, 3])
def test_constant_images(count):
    """Every cell is the same: black frames, a lens cap."""
    cells = np.broadcast_to(np.eye(16)[0], (count, 1, 64, 16))
    memory = fitted(References.of(tuple("abc"[:count]), cells, np.zeros((count, 1, 32, 32), np.float32), (8, 8)))
    assert np.isfinite(memory.fusion.numbers()).all() and memory.loo_scores.max() < 0.3


def test_one_reference_is_compared_with_itself_beyond_the_neighbours():
    cells = np.repeat(np.eye(16), 4, 0).reshape(1, 1, 64, 16)  # rows of the grid in pairs of halves
    refs = References.of(("one",), cells, np.full((1, 1, 32, 32), 0.1, np.float32), (8, 8))
    found = out_of_sample(refs, centre_of(refs.descriptors), 64)
    assert found.shape == (1, 1, 32, 32)
    assert found.max() > 0.5  # its like is next to it only, and that is not counted


@pytest.mark.parametrize("grid", [(1, 1), (2, 2), (3, 1)])
def test_tiny_grids(grid):
    refs = references(1, grid=grid)
    assert np.isfinite(fitted(refs).loo_scores).all()


def test_tiles_are_one_frame():
    one = references(4)
    both = References.of(
        one.names,
        np.concatenate([one.descriptors, references(4, seed=7).descriptors], 1),
        np.concatenate([one.zero_shot, one.zero_shot], 1),
        (8, 8),
    )
    memory = fitted(both, rows=1000)
    assert memory.rows.shape == (4 * 128, 16) and memory.loo_scores.shape == (4,)
    assert np.bincount(memory.image_of).tolist() == [128] * 4


def test_views_are_rows_of_their_frame():
    base = references(3)
    views = frames(2, seed=77).astype(np.float16)
    refs = References(base.names, base.descriptors, base.zero_shot, (8, 8), views, np.array([2, 0], np.int32))
    memory = fitted(refs, rows=1000)
    assert np.bincount(memory.image_of).tolist() == [128, 64, 128]
    assert (memory.rows[memory.image_of == 2] == views[0, 0, 5]).all(1).any()
    assert refs.only(np.array([2])).view_of.tolist() == [0] and len(refs.only(np.array([1])).views) == 0


def test_only_some_cells_become_rows():
    refs = references(3)
    keep = np.zeros((3, 1, 64), bool)
    keep[1, 0, :5] = True
    memory = fitted(refs, keep=keep)
    assert len(memory.rows) == 5 and set(memory.image_of.tolist()) == {1}
    with pytest.raises(ValueError, match="no cell"):
        fitted(refs, keep=np.zeros((3, 1, 64), bool))


def test_outside_of_a_mask_nothing_counts():
    refs = references(3)
    refs.descriptors[0, 0, 0] = np.eye(16, dtype=np.float16)[5]  # a defect in the corner
    inside = np.ones((1, 32, 32), bool)
    inside[0, :16, :16] = False
    assert fitted(refs, inside=inside).loo_scores[0] < fitted(refs).loo_scores[0]


@pytest.mark.parametrize(("count", "seed"), [(9, 0), (19, 1)])
def test_the_promise_is_kept_on_exchangeable_frames(count, seed):
    """The largest value out of sample is reached by at most 1 / (n + 1) of good frames to come, on average."""
    rng = np.random.default_rng(seed)
    rates = []
    for _ in range(12):
        # Frames whose noise differs: some are odder than others.
        levels = rng.lognormal(-3, 0.5, count + 60)[:, None, None, None]
        drawn = frames(1) + levels * rng.standard_normal((count + 60, 1, 64, 16))
        drawn /= np.linalg.norm(drawn, axis=-1, keepdims=True)
        zero = np.full((count + 60, 1, 32, 32), 0.1, np.float32)
        memory = fitted(References.of(tuple(map(str, range(count))), drawn[:count], zero[:count], (8, 8)), rows=256)
        _, scores = fused(drawn[count:, 0].astype(np.float16), zero[count:, 0], memory.tensors(), (8, 8))
        rates.append((scores > memory.loo_scores.max()).mean())
    allowed = 1 / (count + 1)
    assert np.mean(rates) < allowed + 3 * np.sqrt(allowed * (1 - allowed) / 12 / (count + 1)) + 0.02


def test_more_rows_than_folds_are_left_out_in_blocks(monkeypatch):
    monkeypatch.setattr(module, "FOLDS", 3)
    refs = references(8)
    memory = fitted(refs)
    again = scores_of(out_of_sample(refs, memory.centre, 128), refs.zero_shot, memory.fusion)
    assert np.array_equal(memory.loo_scores, again)


def test_no_reference():
    with pytest.raises(ValueError, match="no reference"):
        fitted(references(2).only(np.zeros(0, int)))
