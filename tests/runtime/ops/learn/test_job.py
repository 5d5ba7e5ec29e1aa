"""Learning and growing: what is left out, what scores are, what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from learning import observed
from references import DIGEST, frames, references, unit

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.signature import DescriptorInfo, MemoryInfo
from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.detect.reference import repeats
from kanoclip.runtime.detect.reference.fit import References
from kanoclip.runtime.detect.reference.fused import fused
from kanoclip.runtime.detect.tiles import WHOLE, Tiling
from kanoclip.runtime.errors import CalibrationError, MemoryFileError
from kanoclip.runtime.ops.learn.job import Wanted, grow, learn, mask_of, named, part_of, score, takes_memory
from kanoclip.runtime.ops.learn.observe import Seen
from kanoclip.runtime.types import RegionOfInterest


@pytest.fixture(scope="module")
def manifest(toy_bundle):
    own = Bundle.open(toy_bundle).manifest
    return replace(own, descriptor=DescriptorInfo((8, 8), 16, DIGEST), memory=MemoryInfo(100))


def spoiled(count=12, number=4):
    cells = frames(count)
    cells[number, 0, 30:33] = unit(np.random.default_rng(3).standard_normal((3, 16)))
    base = references(count)
    return observed(count, refs=References.of(base.names, cells, base.zero_shot, (8, 8)))


def test_good_frames(manifest):
    found = learn(observed(8), Wanted(), manifest, None, None, "note")
    assert len(found.memory.rows) == 100 and found.used.tolist() == list(range(8)) and found.outliers == ()
    assert found.memory.note == "note" and found.memory.descriptor_sha256 == DIGEST
    assert len(learn(observed(8), Wanted(rows=30), manifest, None, None, "").memory.rows) == 30
    assert len(learn(observed(8), Wanted(rows=3000), manifest, None, None, "").memory.rows) == 100


def test_copies_are_looked_for_once(manifest, monkeypatch):
    """For the outliers and for the fit; of 256 references it takes a second."""
    compared, is_repeat = [], repeats.is_repeat
    monkeypatch.setattr(repeats, "is_repeat", lambda *given: compared.append(given) or is_repeat(*given))
    found = learn(observed(8), Wanted(), manifest, None, None, "")
    assert len(compared) == 1 and found.outliers == () and found.memory.repeats == ()


@pytest.mark.parametrize("drop", [False, True])
def test_an_outlier_is_reported_and_left_out_on_demand(manifest, drop):
    found = learn(spoiled(), Wanted(drop_outliers=drop), manifest, None, None, "")
    assert [one.number for one in found.outliers] == [4]
    assert (4 in found.used) == (not drop) and (("04.png" in found.memory.names) == (not drop))


def test_unlabelled_frames(manifest):
    found = learn(spoiled(), Wanted(unlabelled=True), manifest, None, None, "")
    assert found.selection is not None and not found.selection.frames[4] and "04.png" not in found.memory.names
    assert found.outliers == ()


def test_all_are_outliers(manifest):
    shapes = observed(2, sizes=[(100, 100), (100, 300)])
    learned = learn(shapes, Wanted(drop_outliers=True), manifest, None, None, "")
    assert learned.used.tolist() == [0]


def test_growing(manifest):
    first = learn(observed(4), Wanted(), manifest, None, None, "").memory
    more = observed(3, refs=references(3, seed=40))
    found = grow(first, more, manifest, None)
    assert len(found.memory.names) == 7 and len(found.memory.loo_scores) == 7 and len(found.memory.rows) <= 100
    # The first of them is scored by the memory before it.
    _, expected = fused(more.references.descriptors[0], more.references.zero_shot[0], first.tensors(), (8, 8))
    assert found.memory.loo_scores[4] == pytest.approx(expected[0], abs=1e-6)


def test_a_graph_without_memory(toy_bundle):
    with pytest.raises(MemoryFileError, match="takes no reference memory"):
        takes_memory(Bundle.open(toy_bundle).manifest)


def test_a_score_is_the_detectors(manifest):
    memory = learn(observed(4), Wanted(), manifest, None, None, "").memory
    refs = references(2, seed=8)
    seen = Seen(refs.descriptors[0], refs.zero_shot[0], refs.descriptors[:0])
    _, (expected,) = fused(refs.descriptors[0], refs.zero_shot[0], memory.tensors(), (8, 8))
    assert score(seen, memory, (8, 8), None) == pytest.approx(expected, abs=1e-6)
    assert score(seen, memory, (8, 8), np.eye(32, dtype=bool)[None]) <= expected


def test_a_region_of_interest_by_tile():
    roi = RegionOfInterest("top", keep=(((0, 0), (1, 0), (1, 0.3), (0, 0.3)),))
    assert mask_of(None, Tiling(WHOLE, (32, 32)), (32, 32)) is None
    whole = mask_of(roi, Tiling(WHOLE, (32, 32)), (32, 32))
    assert whole.shape == (1, 32, 32) and 0.25 < whole.mean() < 0.4
    cut = mask_of(roi, Tiling(TileGrid(3, 1, 0.0), (32, 32)), (32, 32))
    assert cut.shape == (3, 32, 32) and cut[0].mean() > 0.8 and not cut[2].any()


def test_a_part_takes_whole_frames():
    refs = references(2, grid=(16, 16))
    assert part_of(observed(2, refs=refs)).cells.shape == (2, 16, 16)
    twice = References.of(refs.names, np.repeat(refs.descriptors, 2, 1), np.repeat(refs.zero_shot, 2, 1), (16, 16))
    with pytest.raises(CalibrationError, match="--tiles"):
        part_of(observed(2, refs=twice))


def test_names_below_a_folder(manifest):
    memory = learn(observed(2), Wanted(), manifest, None, None, "").memory
    long = replace(memory, names=("/data/good/a.png", "/other/b.png"))
    assert named(long, "/data/good").names == ("a.png", "/other/b.png")
