"""Frames as the graph sees them, put together; and how they are shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.learning.seen import THUMBNAIL, Seen, look, references_of, takes_memory, thumbnail
from kanoclip.runtime.errors import FrameError, MemoryFileError


def seen(value, views=0):
    descriptors = np.full((2, 6, 4), value, np.float16)
    return Seen(
        descriptors, np.full((2, 8, 8), value, np.float32), np.stack([descriptors] * views + [descriptors])[:views]
    )


@pytest.fixture(scope="module")
def tiled(make_toy_bundle, tmp_path_factory):
    """A detector that cuts frames into tiles which begin at rows 0, 24 and 48 of a canvas of 80x32."""
    folder = tmp_path_factory.mktemp("tiled")
    make_toy_bundle(folder, max_batch=3, grid=(4, 4), tiles=TileGrid(3, 1, 0.25))
    with Detector.load(folder, device="cpu", threads=1) as detector:
        yield detector


def test_what_a_memory_is_made_of(tiled, toy_descriptors):
    frame = np.random.default_rng(0).integers(0, 256, (80, 32, 3), np.uint8)
    seen = look(tiled, tiled.prepare(frame))
    tiles = np.stack([frame[top : top + 32] for top in (0, 24, 48)])
    np.testing.assert_allclose(seen.descriptors, toy_descriptors(tiles, (4, 4)), atol=1e-3)
    np.testing.assert_allclose(seen.zero_shot, tiles.mean(3) / 255, atol=1e-6)
    assert seen.descriptors.dtype == np.float16 and seen.views.shape == (0, 3, 16, 3)


def test_a_frame_cut_into_other_tiles_is_not_looked_at(tiled):
    whole = replace(tiled.prepare(np.full((80, 32, 3), 1, np.uint8)), tiles=None)
    with pytest.raises(FrameError, match="cut into 1 tiles, and not 3: prepare it again"):
        look(tiled, whole)


def test_frames_and_their_views():
    found = references_of(["a", "b", "c"], [seen(0.1, 2), seen(0.2, 1), seen(0.3)], (2, 3))
    assert found.names == ("a", "b", "c") and found.grid == (2, 3)
    assert found.descriptors.shape == (3, 2, 6, 4) and found.zero_shot.shape == (3, 2, 8, 8)
    assert found.view_of.tolist() == [0, 0, 1] and found.views.shape == (3, 2, 6, 4)


@pytest.mark.parametrize(
    ("size", "original", "wanted"),
    [((400, 800), None, (96, 192)), ((50, 20), None, (50, 20)), ((256, 256), (1240, 500), (192, 77))],
)
def test_a_thumbnail_has_the_aspect_of_the_original(size, original, wanted):
    small = thumbnail(np.zeros((*size, 3), np.uint8), original)
    assert small.shape == (*wanted, 3) and max(wanted) <= THUMBNAIL


def test_a_bundle_without_a_memory_s_input(make_toy_bundle, tmp_path):
    plain = Bundle.open(make_toy_bundle(tmp_path / "plain.kanoclip", grid=(4, 4)))
    with pytest.raises(MemoryFileError, match="toy: its graph takes no reference memory: export it again"):
        takes_memory(plain.manifest)
    ready = Bundle.open(make_toy_bundle(tmp_path / "ready.kanoclip", grid=(4, 4), memory_rows=9))
    assert takes_memory(ready.manifest) == (ready.manifest.descriptor.sha256, 9)
